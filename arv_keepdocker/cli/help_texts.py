"""The texts from which the help and the manual page are made, in tables that tests compare with what the program does.
Text between backquotes is typed literally."""

from collections.abc import Mapping, Sequence

PURPOSE = "Store and list container images in Arvados."

EXIT_STATUSES: Mapping[int, str] = {
    0: "done",
    1: "any other failure, such as a full disk",
    2: "wrong usage, or a name that docker rejects",
    3: "the image is neither in the engine (or registry) nor in Arvados; or there is no image of that name to list",
    4: "the container engine or the registry is missing, unreachable or failed",
    5: "the image is broken or incomplete, or the cluster refuses its format",
    6: "Arvados or Keep refused, failed or cannot be reached",
    7: "a dry run found something that would be written to Arvados",
    130: "stopped by SIGINT",
    143: "stopped by SIGTERM",
}

ENVIRONMENT: Mapping[str, str] = {
    "ARVADOS_API_HOST": "the cluster: a host name, and perhaps a port",
    "ARVADOS_API_TOKEN": "your token, which the Arvados Workbench shows under 'Get API token'",
    "ARVADOS_API_HOST_INSECURE": "if it is 1, the cluster's certificate is not verified",
    "ARVADOS_KEEP_SERVICES": "URLs of the Keep services to use, instead of those that the cluster names",
    "ARVADOS_KEEP_PROXY": "URL of the Keep proxy to use",
    "ARVADOS_DEBUG": "if it is set, the SDK's log is shown, and tracebacks of errors",
    "ARV_KEEPDOCKER_ENGINE": "the container engine, as with `--engine`",
    "ARV_KEEPDOCKER_UNIVERSAL": "1 or 0, as with `--universal` or `--no-universal`",
    "ARV_KEEPDOCKER_VIA_PUSH": "1 or 0, as with `--via-push` or `--no-via-push`",
    "DOCKER_HOST": "the Docker daemon; `docker` obeys its other variables, too",
    "SSL_CERT_FILE": "certificates of the authorities to trust, by default `/etc/arvados/ca-certificates.crt` "
    "if that exists, or else the system's",
    "REQUESTS_CA_BUNDLE": "more certificates to trust, for registries only",
    "CURL_CA_BUNDLE": "the same",
    "REGISTRY_AUTH_FILE": "where the credentials for registries are looked for first",
    "DOCKER_CONFIG": "the directory of docker's config.json, by default `~/.docker`",
    "XDG_RUNTIME_DIR": "where podman's containers/auth.json is",
    "XDG_CACHE_HOME": "where caches are, by default `~/.cache`",
    "XDG_CONFIG_HOME": "where settings are, by default `~/.config`",
    "XDG_CONFIG_DIRS": "where settings for all users are, by default `/etc/xdg`",
    "TERM": "if it is dumb, progress is not redrawn in place",
}

FILES: Mapping[str, str] = {
    "~/.config/arvados/settings.conf": "settings, such as ARVADOS_API_HOST and ARVADOS_API_TOKEN, that are not in the "
    "environment",
    "~/.docker/config.json": "credentials for registries, as docker login writes them",
    "~/.config/containers/auth.json": "credentials for registries, as podman login writes them",
    "/etc/docker/certs.d": "certificates of registries, each in a directory HOST:PORT; also "
    "`/etc/containers/certs.d` and `~/.config/containers/certs.d`",
    "~/.cache/arvados/docker": "notes of what was sent, from which an interrupted upload resumes; locks, so that only "
    "one run at a time stores an image; notes of what an interrupted check found whole, which are used for a day; with "
    "`--via-arv-put`, the image while it is uploaded. Leftovers of dead runs are removed after a week",
}

EXAMPLES: Sequence[tuple[str, str]] = (
    ("Store an image that docker has", "arv-keepdocker bio/tool:1.1"),
    ("Store what its registry has now, in a project", "arv-keepdocker --pull --project-uuid UUID bio/tool:1.1"),
    ("See what would be written", "arv-keepdocker --dry-run bio/tool:1.1"),
    ("Store an image from another machine", "ssh HOST docker save bio/tool:1.1 | arv-keepdocker --from-archive -"),
    ("Store an image without a container engine", "arv-keepdocker --from-registry ghcr.io/bio/tool:1.1"),
    ("Store an archive under another name", "arv-keepdocker --from-archive image.tar bio/tool 1.1"),
    ("Store the images that a file names", "arv-keepdocker --images-from images.txt"),
    ("Give an image in Arvados another name", "arv-keepdocker --from-arvados bio/tool:1.1 bio/tool stable"),
    ("Copy it to a project, by its portable data hash", "arv-keepdocker --project-uuid UUID --from-arvados HASH"),
    (
        "Check all images in Arvados",
        "arv-keepdocker images --quiet | arv-keepdocker --dry-run --from-arvados --images-from -",
    ),
    ("List all images of a repository", "arv-keepdocker images --filter reference=bio/tool"),
    ("List the ten largest images", "arv-keepdocker images --format wide --sort size --limit 10"),
    (
        "Print all portable data hashes",
        "arv-keepdocker images --format jsonl | jq -r .portable_data_hash",
    ),
)

FILTERS: Mapping[str, str] = {
    "reference=PATTERN": "images with such a name, as in `docker images`: `*` and `?` do not match a slash, and "
    "the tag can be left out",
    "before=IMAGE": "images older than this one, a name or an id",
    "since=IMAGE": "images newer than this one",
    "dangling=true": "images without a name",
    "dangling=false": "images with a name",
}

JSON_KEYS: Mapping[str, str] = {
    "repository": "the name's repository; null for an image without a name",
    "tag": "the name's tag; null if there is none",
    "digest": "the digest in a name such as repo@sha256:...; else null",
    "id": "by which compute nodes know the image: `sha256:` and 64 digits",
    "engine_id": "what Docker's containerd image store calls the image, if that is not its id; else null",
    "collection_uuid": "the collection that it is in",
    "portable_data_hash": "of the collection's content",
    "owner_uuid": "the project or user that owns the collection",
    "owner_name": "the project's or user's name; null if you may not read it",
    "created": "when the image was made, in UTC; null if unknown",
    "stored_at": "when the collection was made, in UTC",
    "size": "bytes of the collection's file",
}

RESULT_KEYS: Mapping[str, str] = {
    "image": "IMAGE [TAG] as it was given; null for an archive's image if none was",
    "action": "what was done, or what a dry run would do: `stored` (read and uploaded), `completed` (what a run that "
    "died had left was finished), `copied` (from another project's collection), `linked` (a name or an id was added) "
    "or `found` (nothing was missing)",
    "dry_run": "whether nothing was written, because of `--dry-run`",
    "collection_uuid": "the collection that the image is in; null if a dry run would make it",
    "portable_data_hash": "of the collection's content",
    "id": "by which compute nodes know the image: `sha256:` and 64 digits",
    "engine_id": "what Docker's containerd image store or the registry calls the image, if that is not its id; else "
    "null",
    "names": "the names that the image has in the project",
    "project_uuid": "the project or user that owns the collection",
    "size": "bytes of the collection's file",
    "fetched": "bytes that came from a registry",
    "sent": "bytes that were sent to Keep; of a dry run, that would be",
    "reused": "bytes of the image that Keep had already",
    "layers": "for each layer, base first, an object with `diff_id`, `size` in bytes, and `new`, whether it had to be "
    "sent; null if the image was not read",
    "seconds": "how long it took",
}

CHECK_KEYS: Mapping[str, str] = {
    "image": "SOURCE [IMAGE [TAG]] as it was given",
    "verdict": "`good`; `incomplete` (it can run, and names or a copy in the project are missing); `mendable` (it is "
    "whole, and without `--dry-run` it would be stored anew); `mended` (the same, and that was done already); or "
    "`broken` (it cannot run anywhere)",
    "faults": "why it is broken, each in words: blocks that Keep does not have, damaged layers, wrong links, ...",
    "findings": "what else is not as it should be, such as an id that only some engines know",
    "would_make": "what would be written to Arvados, each in words",
    "collection_uuid": "the collection that was checked; its portable data hash where only that is known",
    "portable_data_hash": "of the collection's content",
    "id": "the id that its file is named for; null if that is none",
    "right_id": "the id by which engines find it, or would if it were stored anew; null if that is not known",
    "form": "`plain` or `universal`; null if it is not in the canonical form",
    "names": "the names that it has, or would get",
    "size": "bytes of its blocks",
    "layers": "for each layer, base first, an object with `diff_id` and `size` in bytes; null if they are not known",
    "exit_status": "5 if it is broken, 7 if something would be written, else 0",
    "seconds": "how long it took",
}

ERROR_KEYS: Mapping[str, str] = {
    "image": "IMAGE [TAG] as it was given",
    "error": "what went wrong",
    "exit_status": "the exit status that it has for one image",
}

DESCRIPTION: Sequence[str] = (
    "With IMAGE, the image is looked for in the container engine and in Arvados, uploaded if Arvados does not have it, "
    "and recorded under its name. The UUID of its collection is printed on stdout; everything else is on stderr. "
    "Layers that Arvados has are not sent again, and an interrupted upload resumes when the same command is run again.",
    "With `--from-arvados` SOURCE, the image comes from Arvados itself: SOURCE is a name, an id, a collection's "
    "UUID or a portable data hash, and IMAGE [TAG] the name that it gets, by default all that it has. An image in "
    "the canonical form is not read: only names are added, or it is copied into the project. Any other is read from"
    " Keep, checked, and stored anew under an id that compute nodes find; its old links stay. With `--dry-run` "
    "every block and layer is read, and the verdict is printed: `good`; `incomplete`, if names or a copy in the "
    "project are missing; `mendable`, if it would be stored anew; `mended`, if that was done already; or `broken`, "
    "with each fault.",
    "With the word `images`, or with no IMAGE and no options but those for listing, the images in Arvados are listed, "
    "the most preferred first: of several with one name, the first is what a workflow runs in. `images` NAME lists "
    "those of exactly that name, or if there are none, those whose id begins with NAME.",
    "IMAGE [TAG] is a repository with or without a tag (`repo`, `repo:tag`, `repo TAG`, `host:port/repo:tag`), a "
    "digest (`repo@sha256:DIGEST`), or an image id, full or short, with or without `sha256:`. The tag is latest by "
    "default. Arvados records the name as you write it; an id is recorded without a name. An image called images is "
    "`images:latest`. Put `--` before what begins with a hyphen.",
)

SEE_ALSO = ("arv-put(1)", "docker-image-save(1)", "podman-save(1)", "https://arvados.org")
