"""Pin files: wget2's format, JSON, JSON lines, CSV, TOML, and Chromium's static list.

Each format has a reader. It takes the lines of a file (an open text file) and yields Known Pinned Hosts. Most formats
have a writer, which takes entries and yields pieces of text. A reader raises :class:`~dynpin.InvalidPinFile` at the
first fault, with its line or entry. No pin is dropped silently, and PinStore.merge writes nothing before the last entry
was read. JSON lines, CSV and wget2's format may have a million entries. The other formats are read as a whole and take
up to 10,000.
"""

from .chromium import read_chromium
from .csv import read_csv, write_csv
from .fields import certificate_digest
from .json import describe, read_json, read_jsonl, write_json, write_jsonl
from .toml import read_toml, write_toml
from .wget2 import lost_in_wget2, read_wget2, write_wget2

__all__ = [
    "certificate_digest",
    "describe",
    "lost_in_wget2",
    "read_chromium",
    "read_csv",
    "read_json",
    "read_jsonl",
    "read_toml",
    "read_wget2",
    "write_csv",
    "write_json",
    "write_jsonl",
    "write_toml",
    "write_wget2",
]
