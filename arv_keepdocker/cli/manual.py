"""The manual page, in the language of man(7)."""

import argparse
import re
import textwrap
from collections.abc import Mapping

from . import help_texts

_WIDTH = 79


def page(parser: argparse.ArgumentParser, version: str, date: str) -> str:
    """The manual page of the parser's program; `date` is that of the page, as in 2024-03-01."""
    name = parser.prog
    sections = {
        "NAME": [_escaped(name) + r" \- " + _text(help_texts.PURPOSE.rstrip("."))],
        "SYNOPSIS": _synopsis(parser),
        "DESCRIPTION": [line for paragraph in help_texts.DESCRIPTION for line in (".PP", _text(paragraph))],
        "OPTIONS": _options(parser),
        "FILTERS": [
            ".PP",
            "Of several patterns one has to match; other filters all have to.",
            *_table({f"`{pattern}`": meaning for pattern, meaning in help_texts.FILTERS.items()}),
        ],
        "JSON": _objects(),
        "EXAMPLES": _examples(name),
        "EXIT STATUS": [
            *_table({f"`{status}`": meaning for status, meaning in help_texts.EXIT_STATUSES.items()}),
            ".PP",
            "New statuses may be added: treat one that you do not know as a failure.",
        ],
        "ENVIRONMENT": _table({f"`{variable}`": meaning for variable, meaning in help_texts.ENVIRONMENT.items()}),
        "FILES": _table({f"_{path}_": meaning for path, meaning in help_texts.FILES.items()}),
        "SEE ALSO": [_text(", ".join(help_texts.SEE_ALSO))],
    }
    lines = [f'.TH {_escaped(name.upper())} 1 {date} "arv-keepdocker {version}" Arvados']
    for title, content in sections.items():
        lines += [f'.SH "{title}"', *(content[1:] if content[0] == ".PP" else content)]
    return "\n".join(lines) + "\n"


def _synopsis(parser: argparse.ArgumentParser) -> list[str]:
    usage = parser.format_usage().removeprefix("usage: ")
    lines = [line.strip().removeprefix(parser.prog) for line in usage.strip().splitlines()]
    return [line for words in lines for line in (f".B {_escaped(parser.prog)}", _italic(words.strip()), ".br")][:-1]


def _italic(words: str) -> str:
    return re.sub(r"([A-Z]+)", r"\\fI\1\\fR", _escaped(words))


def _options(parser: argparse.ArgumentParser) -> list[str]:
    lines = []
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
        if not shown:
            continue
        lines.append(f'.SS "{(group.title or "").capitalize()}"')
        for action in shown:
            lines += [".TP", _invocation(action), _text(formatter._expand_help(action))]
    return lines


def _objects() -> list[str]:
    """What is printed as JSON."""
    tables = {
        "The objects that `--format` json and jsonl print have these keys. Others may be added.": help_texts.JSON_KEYS,
        "The object that `--format` json prints of an image that was stored has these:": help_texts.RESULT_KEYS,
        "With `--from-arvados` and `--dry-run`, the object has these:": help_texts.CHECK_KEYS,
        "With `--images-from`, each object is on a line of its own. That of an image that failed has these:": (
            help_texts.ERROR_KEYS
        ),
    }
    lines = []
    for words, keys in tables.items():
        lines += [".PP", _text(words), *_table({f"`{key}`": meaning for key, meaning in keys.items()})]
    return lines


def _invocation(action: argparse.Action) -> str:
    """How the option is written: its names and its value."""
    if not action.option_strings:
        return f"\\fI{action.metavar}\\fR"
    names = ", ".join(f"\\fB{_escaped(option)}\\fR" for option in action.option_strings)
    if action.nargs == 0:
        return names
    if action.metavar is None and action.choices is not None:
        return f"{names} " + "|".join(f"\\fB{choice}\\fR" for choice in action.choices)
    return f"{names} {_italic(str(action.metavar or action.dest.upper()))}"


def _examples(name: str) -> list[str]:
    lines = []
    for purpose, command in help_texts.EXAMPLES:
        command = command.replace("arv-keepdocker", name)
        lines += [".PP", f"{_text(purpose)}:", ".PP", ".RS 4", ".nf", _not_a_request(_escaped(command)), ".fi", ".RE"]
    return lines


def _table(rows: Mapping[str, str]) -> list[str]:
    return [line for term, meaning in rows.items() for line in (".TP", _text(term), _text(meaning))]


def _text(words: str) -> str:
    """The text with backquoted parts in bold and, at its beginning, a part between underscores in italics."""
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", _escaped(words))
    text = re.sub(r"^_(.*)_$", r"\\fI\1\\fR", text)
    return "\n".join(map(_not_a_request, textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)))


def _escaped(words: str) -> str:
    return words.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")


def _not_a_request(line: str) -> str:
    """Escape a line that begins with a period or an apostrophe: man would take it for a request."""
    return f"\\&{line}" if line.startswith((".", "'")) else line
