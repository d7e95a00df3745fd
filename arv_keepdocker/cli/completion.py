"""Completion for bash and zsh: shtab makes it from the parser, this module adds the possible values of arguments."""

import argparse
import re
from collections.abc import Mapping

from . import help_texts

_WORDS: Mapping[str, str] = {
    "engine": "docker podman",
    "platform": "linux/amd64 linux/arm64",
    "filter": " ".join(re.sub("[A-Z]+$", "", pattern) for pattern in help_texts.FILTERS),
    "image": "images $(_arv_keepdocker_local_images)",
}
"""Values that an argument can have, where others are possible, too; as a shell writes them."""
_LOCAL_IMAGES = """
_arv_keepdocker_local_images() {
    local engine
    for engine in "$ARV_KEEPDOCKER_ENGINE" docker podman; do
        command -v -- "$engine" >/dev/null 2>&1 || continue
        timeout 3 "$engine" image ls --format '{{.Repository}}:{{.Tag}}' 2>/dev/null | grep -x '[A-Za-z0-9._/:-]*'
        return
    done
}
"""
_BASH_WORDS = """
_arv_keepdocker_{dest}() {{
    compgen -W "{words}" -- "$1"
}}
"""
_ZSH_WORDS = """
_arv_keepdocker_{dest}() {{
    local -a words
    words=($(print -r -- {words}))
    compadd -S '' -- ${{(M)words:#*=}}
    compadd -- ${{words:#*=}}
}}
"""
_BASH_START = """
# bash splits words at : and =, which names of images and options with values have in them.
_{function}_from_line() {{
    local line=${{COMP_LINE:0:COMP_POINT}} word separator kept start=
    local -a typed words=()
    read -ra typed <<<"$line"
    [[ $line != *[[:space:]] ]] || typed+=("")
    for word in "${{typed[@]}}"; do
        if [[ $word == --*=* ]]; then words+=("${{word%%=*}}" "${{word#*=}}"); else words+=("$word"); fi
    done
    COMP_WORDS=("${{words[@]}}") COMP_CWORD=$((${{#words[@]}} - 1))
    _shtab_{function} "$@"
    word=${{words[-1]}}
    for separator in : =; do
        kept=${{word%"${{word##*"$separator"}}"}}
        [[ $COMP_WORDBREAKS != *"$separator"* || ${{#kept}} -le ${{#start}} ]] || start=$kept
    done
    COMPREPLY=("${{COMPREPLY[@]#"$start"}}")
    [[ ${{COMPREPLY[0]-}} != *= ]] || compopt -o nospace
    [[ -n ${{COMPREPLY[0]-}} ]] || COMPREPLY=()
}}
complete -o bashdefault -F _{function}_from_line {program}
"""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that completes the command line of the parser's program in `bash` or `zsh`."""
    import shtab

    for action in parser._actions:
        if action.dest in _WORDS:
            vars(action)["complete"] = dict.fromkeys(("bash", "zsh"), f"_arv_keepdocker_{action.dest}")
        elif action.metavar == "FILE":
            vars(action)["complete"] = shtab.FILE
    function = {"bash": _BASH_WORDS, "zsh": _ZSH_WORDS}[shell]
    functions = [function.format(dest=dest, words=words) for dest, words in _WORDS.items()]
    made: str = shtab.complete(parser, shell, preamble="".join([_LOCAL_IMAGES, *functions]))
    if shell == "bash":
        made += "\n" + _BASH_START.format(function=parser.prog.replace("-", "_"), program=parser.prog)
    return made
