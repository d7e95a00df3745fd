"""The JSON objects that describe one stored, failed or checked image."""

from typing import TYPE_CHECKING

from ..errors import KeepdockerError
from ..push.request import Outcome

if TYPE_CHECKING:  # only a check needs it
    from ..push.check import Verdict


def of_outcome(image: str | None, outcome: Outcome, dry_run: bool) -> dict[str, object]:
    """All that is known about an image that was stored; see `help_texts.RESULT_KEYS`."""
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
    """What went wrong with an image; see `help_texts.ERROR_KEYS`."""
    return {"image": image, "error": str(error), "exit_status": error.exit_status}


def of_verdict(image: str, verdict: "Verdict") -> dict[str, object]:
    """The result of checking an image; see `help_texts.CHECK_KEYS`."""
    located, facts = verdict.located, verdict.facts
    return {
        "image": image,
        "verdict": verdict.word,
        "faults": list(facts.faults),
        "findings": list(facts.findings),
        "would_make": list(verdict.steps),
        "collection_uuid": located.uuid,
        "portable_data_hash": located.content,
        "id": located.image_id,
        "right_id": facts.image_id,
        "form": facts.form,
        "names": list(verdict.names),
        "size": located.size,
        "layers": [{"diff_id": diff_id, "size": size} for diff_id, size in facts.layers] or None,
        "exit_status": verdict.exit_status,
        "seconds": round(verdict.seconds, 3),
    }
