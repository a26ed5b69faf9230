"""The widths of the letters of DejaVu Sans, in thousandths of the letter size.

DejaVu Sans is part of matplotlib, and is used in the PNG. It is one of the widest fonts. Verdana, the alternative on
pages, is equally wide. So a text that fits by these numbers fits in any font. `tests/lab/test_pictures.py` compares
them with the font itself.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BOLD", "OTHER", "REGULAR"]

# The width for a letter that is not listed: about that of the widest Latin letters.
OTHER = 1000

_LETTERS = (
    "".join(map(chr, range(32, 127)))
    + "\u2013\u2014\u2026\u00b7\u00a7\u00d7\u2192\u2713\u2717\u2018\u2019\u201c\u201d\u00e9"
)


def _widths(told: str) -> Mapping[str, int]:
    return dict(zip(_LETTERS, map(int, told.split()), strict=True))


REGULAR = _widths(
    """
    318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636 636 337
    337 838 838 838 531 1000 684 686 698 770 632 575 775 752 295 295 656 557 863 748 787 603 787 695 635 611
    732 684 989 685 611 685 390 337 390 838 500 500 613 635 550 635 615 352 635 634 278 278 579 278 974 634 612
    635 635 411 521 392 634 592 818 592 592 525 636 337 636 838 500 1000 1000 318 500 838 838 838 838 318 318
    518 518 615
    """
)
BOLD = _widths(
    """
    348 456 521 838 696 1002 872 306 457 457 523 838 380 415 380 365 696 696 696 696 696 696 696 696 696 696
    400 400 838 838 838 580 1000 774 762 734 830 683 683 821 837 372 372 775 637 995 837 850 733 850 770 720
    682 812 774 1103 771 724 725 457 365 457 838 500 500 675 716 593 716 678 435 716 712 343 343 665 343 1042
    712 687 716 716 493 595 478 712 652 924 645 652 582 712 365 712 838 500 1000 1000 380 500 838 838 838 838
    380 380 657 657 678
    """
)
