"""What programs get of an image that was stored, or would be."""

from ..errors import KeepdockerError
from ..push.request import Outcome


def of_outcome(image: str | None, outcome: Outcome, dry_run: bool) -> dict[str, object]:
    """All that is known of an image that was stored; see `about.RESULT_KEYS`."""
    entry, content = outcome.plan.entry, outcome.content
    names = dict.fromkeys([entry.name, *entry.further_names, *outcome.plan.names])
    layers = content.layers if content is not None else None
    return {
        "image": image,
        "action": outcome.plan.action.value,
        "dry_run": dry_run,
        "collection_uuid": outcome.collection,
        "portable_data_hash": content.portable_data_hash if content is not None else None,
        "id": outcome.image_id,
        "engine_id": entry.engine_id,
        "names": [name for name in names if name],
        "project_uuid": entry.project,
        "size": content.size if content is not None else None,
        "fetched": content.fetched if content is not None else 0,
        "sent": content.sent if content is not None else 0,
        "reused": content.reused if content is not None else 0,
        "layers": None
        if layers is None
        else [{"diff_id": layer.diff_id, "size": layer.size, "new": layer.new} for layer in layers],
        "seconds": round(outcome.seconds, 3),
    }


def of_failure(image: str | None, error: KeepdockerError) -> dict[str, object]:
    """What went wrong with an image; see `about.ERROR_KEYS`."""
    return {"image": image, "error": str(error), "exit_status": error.exit_status}
