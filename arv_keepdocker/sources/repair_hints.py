"""What to do about images that docker's containerd store cannot save."""

import json
from collections.abc import Callable, Sequence

from ..sources.engine_image import MISREAD, EngineImage

_NOT_WHOLE = "no suitable export target found"
"""What docker says to `image save --platform` of an image whose layers it does not have."""
_ONLY_ANOTHER = "unable to create manifests file"
"""What docker says to `image save` of an index whose image for the daemon's own platform it does not have."""

RunCommand = Callable[[Sequence[str]], tuple[int, str, str]]


def for_failed_save(run: RunCommand, image: EngineImage, said: str) -> str | None:
    """What to do where `docker save` has failed and `said` why; None where nothing is known."""
    if image.containerd and _NOT_WHOLE in said:
        return for_missing_layers(run, image)
    if image.containerd and _ONLY_ANOTHER in said:
        return "It may be there for another platform only; docker can save that from version 28 on, client and daemon."
    return None


def for_missing_layers(run: RunCommand, image: EngineImage) -> str:
    """What mends an image whose layers the store has not kept.

    A pull does not fetch layers that are unpacked already, and these stay as long as any image has them, also one
    without a name (measured on Docker 29). So all of them have to go first.
    """
    if not image.names:
        return "Remove this image and every other one that has the same layers, then pull or build it again."
    platform = ["--platform", str(image.platform)] if image.platform is not None else []
    pull = " ".join(["docker pull", *platform, image.names[0]])
    others = _sharing(run, image)
    how = f"docker rmi {' '.join([*(others or ()), *image.names])}, then {pull}"
    if others is None:
        first = "docker rmi OTHER for each, docker image prune -f for those without a name"
        return f"Remove every other image that has the same layers ({first}), and then this one: {how}"
    if others:
        return f"Remove every image that has these layers (first save those that you cannot pull again): {how}"
    return f"Remove it and pull it again: {how}"


def _sharing(run: RunCommand, image: EngineImage) -> list[str] | None:
    """The names, or else Ids, of the other images that have unpacked layers of this one; None if it is not known.

    A layer is unpacked upon those below it, so that images share it if they begin with the same layers.
    """
    _, ids, _ = run(["image", "ls", "--all", "--quiet", "--no-trunc"])
    _, stdout, _ = run(["image", "inspect", *sorted({image.id, *ids.split()})])
    try:
        described = {each["Id"]: each for each in json.loads(stdout)}
        base = described.pop(image.id)["RootFS"]["Layers"][0]
        sharing = {image_id: each for image_id, each in described.items() if base in each["RootFS"]["Layers"][:1]}
        return [name for image_id, each in sharing.items() for name in each["RepoTags"] or [image_id]]
    except MISREAD:
        return None
