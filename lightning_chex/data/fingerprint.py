"""A hash that identifies the data of an evaluation."""

import hashlib
import os

import torch

from lightning_chex.data.contract import XrayDataModule, described


def fingerprint(data: XrayDataModule, *others: object) -> str:
    """Hash what all parts hold: labels, zone scores, names and patients in order, and the sizes of the files.

    Two copies with one fingerprint give the same evaluation; a changed table, a missing image or another resolution
    changes it. The pixels of the files are not read.

    Args:
        data: whose parts.
        others: what else the samples depend on, such as boxes; values whose text identifies them.

    Returns:
        64 hexadecimal digits.
    """
    data.look()
    digest = hashlib.sha256()
    for name, part in sorted(data.parts().items()):
        digest.update(f"{name} {len(part)} {data.size}\n".encode())
        known = described(part)
        for values in (part.labels, torch.zeros(0) if known.zones is None else known.zones):
            digest.update(values.contiguous().numpy().tobytes())
        for names in (known.image_ids, known.patient_ids):
            digest.update("\n".join(names or ()).encode())
        digest.update(str([os.path.getsize(path) for path in known.paths or ()]).encode())
    if not others:
        return digest.hexdigest()
    return hashlib.sha256(" ".join(map(str, (digest.hexdigest(), *others))).encode()).hexdigest()
