"""File names for maps, whatever images and classes are called."""

import hashlib
import re


def map_name(image: str, target: str) -> str:
    """Name the file of a map, without suffix: ``<image>__<target>``, what a file system may not like replaced.

    A name that had to be changed ends with a piece of its hash, so that two names never meet.

    Example:
        >>> map_name("00013118_008", "Mass")
        '00013118_008__Mass'
        >>> map_name("../a b", "Mass")
        'a_b-2c2c791a__Mass'
    """
    return f"{_safe(image)}__{_safe(target)}"


def _safe(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+|__+", "_", name).strip("._")[:100]
    # a name that ends like a checksum could be what another one's becomes
    if plain == name and name and not re.search(r"-[0-9a-f]{8}$", name):
        return name
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
