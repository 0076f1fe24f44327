"""Shares of the maps in the corners, at the edge and outside the lungs, where no finding lies."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lightning_chex.explanations.processes import gathered_rows
from lightning_chex.explanations.subgroups import FEWEST, grouped, interval_figures
from lightning_chex.metrics import ClassMean, corner_mask, edge_mask, mass_accuracy, summarize

CORNERS = "corners"
EDGE = "edge"
OUTSIDE = "outside_lungs"

_Row = tuple[float, str, Mapping[str, str]]  # a map's share, its patient and its groups


class PlaceShares:
    """Shares of maps in the corners, at the edge and outside the lungs, over maps and per class.

    A marker, a text or a collimator that tells the class draws the maps to itself: these shares then rise.

    Args:
        num_classes: number of classes a map can explain; 1 for a score.
        device: of the maps.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._shares = {name: ClassMean(num_classes).to(device) for name in (CORNERS, EDGE, OUTSIDE)}
        self._areas = {name: ClassMean(1).to(device) for name in (CORNERS, EDGE, OUTSIDE)}
        self._rows: dict[str, list[_Row]] = {}

    def update(
        self,
        maps: Tensor,
        classes: Tensor,
        lungs: Tensor | None = None,
        subgroups: Sequence[Mapping[str, str]] | None = None,
        patients: Sequence[str] = (),
    ) -> None:
        """Add maps.

        Args:
            maps: (N, H, W); what is below 0 does not count.
            classes: class each explains, int64 (N,).
            lungs: bool (N, H, W), empty where they are not known; None where they are known of none.
            subgroups: groups of each map's image, by sex and so on, N of them; None where the data tell none.
            patients: who each map shows, N of them, where there are ``subgroups``.
        """
        if not len(maps):
            return
        height, width = maps.shape[-2:]
        made = {CORNERS: corner_mask(height, width), EDGE: edge_mask(height, width)}
        places = {name: own.to(maps.device).expand_as(maps) for name, own in made.items()}
        known = heated = (maps > 0).flatten(1).any(1)  # of a map of nothing there is no share
        if lungs is not None:
            places[OUTSIDE], known = ~lungs, heated & lungs.flatten(1).any(1)
        for name, where in places.items():
            counted = known if name == OUTSIDE else heated
            share = mass_accuracy(maps, where).where(counted, torch.nan)
            self._shares[name].update(share, classes)
            area = where.flatten(1).float().mean(1).where(counted, torch.nan)
            self._areas[name].update(area, torch.zeros_like(classes))
            if subgroups is not None:
                self._rows.setdefault(name, []).extend(zip(share.tolist(), patients, subgroups, strict=True))

    def scores(self, class_names: Sequence[str]) -> dict[str, Tensor]:
        """Means over all maps so far and over all distributed processes, which all must call this.

        Returns:
            ``corners``, ``edge``, ``outside_lungs`` (where lungs are known), 0 to 1; for classes ``corners/NAME`` too;
            and ``corners_every_pixel``, the share of the image that these places are, which a map that marks every
            pixel has there. For subgroups of `FEWEST` patients and more ``corners_by_sex/F``, with the ends of a 95 %
            interval by patient, ``corners_by_sex/F_low`` and ``_high``.
        """
        found: dict[str, Tensor] = {}
        for metric in (*self._shares.values(), *self._areas.values()):
            if not metric.update_called:  # torchmetrics would warn, and other processes may have something to share
                metric.update(
                    torch.zeros(0, device=metric.device), torch.zeros(0, dtype=torch.long, device=metric.device)
                )
        for name, metric in self._shares.items():
            measured = metric.compute()
            area = self._areas[name].compute()
            counts = measured["count"].reshape(-1)
            means = measured["per_class"].reshape(-1)
            if counts.sum() == 0:
                continue
            found |= {name: measured["mean"], f"{name}_every_pixel": area["mean"]}
            found |= {f"{name}/{own}": means[c] for c, own in enumerate(class_names) if counts[c] > 0}
        for name, rows in self._all_rows().items():
            found |= {f"{name}_by_{key}": torch.tensor(value) for key, value in _by_subgroup(rows)}
        return found

    def _all_rows(self) -> dict[str, list[_Row]]:
        """The rows of all processes, by place."""
        found: dict[str, list[_Row]] = {}
        for name, row in gathered_rows([(name, row) for name, rows in self._rows.items() for row in rows]):
            found.setdefault(name, []).append(row)
        # in an order that does not depend on the number of processes, as intervals do on it
        return {name: sorted(rows, key=lambda row: (row[1], row[0])) for name, rows in found.items()}


def _by_subgroup(rows: Sequence[_Row]) -> Iterator[tuple[str, float]]:
    for where, places in grouped([groups for *_, groups in rows]).items():
        shares = [rows[i][0] for i in places]
        patients = [rows[i][1] for i in places]
        estimate = summarize(shares, patients, resamples=500, bounds=(0.0, 1.0)).mean
        if estimate.patients >= FEWEST:
            yield from ((f"{where}{end}", value) for end, value in interval_figures(estimate))
