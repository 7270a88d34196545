"""What the names of columns and of arrays mean, however they are spelled: the one place for names."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

from ..errors import Refusal
from .contents import EXTRAS, Extras
from .scan import quoted

LONGEST_NAME = 60  # longer than any name that is known
MOST_LISTED = 12  # names in a note,
LONGEST_LIST = 150  # and their letters
FLAG = "name the columns with --columns (columns= in Python), such as x,y,z,intensity,r,g,b,_"
MOST_ROWS = 16  # of a table that looks transposed
# The plain names of columns, as by hand.
COLUMNS = {
    "points": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "colors": ("r", "g", "b"),
    "labels": ("label",),
    "intensity": ("intensity",),
}
SKIPPED = "_"
UNIT = re.compile(
    r"(?<![a-z])(?:in|[\u00b5\u03bcn]m|mm?|cm|ft|feet|met(?:er|re)s?)(?![a-z])|[(\[{](?![xyzrgb][)\]}])[^)\]}]*[^)\]}\d][^)\]}]*[)\]}]"
)
WIDE = "".join(map(chr, range(0xFF01, 0xFF5F)))  # ASCII as wide as Chinese characters
UNITS = "([\u00b5\u03bcn]m|mm?|cm|km|ft|feet|in(?:ch(?:es)?)?|yd|yards?|met(?:er|re)s?|deg(?:rees?)?)"
UNITS_ALONE = re.compile(rf"\W*{UNITS}?\W*")
AT_END = re.compile(rf"[_\W]{UNITS}\W*$")
SAME_UNIT = {"meter": "m", "meters": "m", "metre": "m", "metres": "m", "feet": "ft", "inches": "inch"}
SAME_UNIT |= {"degree": "deg", "degrees": "deg", "in": "inch", "yards": "yd", "yard": "yd", "\u00b5m": "\u03bcm"}
# Patterns of a name's letters in lower case, without units: "Pos. X [m]" is posx, "P[x]" px, "Points:0" points and 0.
POINT = "(?:points?|pts?|pos|positions?|coor|coords?|coordinates?|vert(?:ex|ices)|loc|locations?|xyz|p)"
PLACE = "cart(?:esian)?|world|local|global|map|grid|lidar|cent(?:er|re|roid)|axis|field|scalar|values?|utm"
AROUND = f"(?:{POINT}|{PLACE})*"
NORMAL = "(?:vertex|points?|scalar|field)*(?:n|norms?|normals?)(?:xyz)?"
COLOR = "(?:colou?rs?|rgba?)"
TINT = f"(?:{COLOR}|col|cd|diffuse|scalar|field|vertex|point)*"
# Columns that come in threes; the group in each pattern says which of three a column is.
THREE_PATTERNS = {
    "points": (f"{AROUND}([xyz]){AROUND}", "(easting|northing|elevation|height|altitude)"),
    "normals": (f"{NORMAL}([xyz])", "([xyz])normals?", "([ijk])"),
    "colors": (f"{TINT}(r|g|b|red|green|blue)(?:f|float|channel|value|u?int|byte)?",),
}
COORDINATE = re.compile("\u5750\u6807|\u5ea7\u6a19|\u043a\u043e\u043e\u0440\u0434|\uc88c\ud45c")  # coordinate
WHICH = {"x": 0, "y": 1, "z": 2, "r": 0, "g": 1, "b": 2, "red": 0, "green": 1, "blue": 2}
WHICH |= {"i": 0, "j": 1, "k": 2, "easting": 0, "northing": 1, "elevation": 2, "height": 2, "altitude": 2}
NUMBERED = {"points": f"{AROUND}{POINT}{AROUND}", "normals": NORMAL, "colors": f"{TINT}{COLOR}"}  # then 0, 1, 2
# Columns and arrays that come alone, in order of preference.
LABEL = (
    "labels?(?:ids?)?",
    "(?:sem|semantics?)(?:class|cls|labels?|ids?|gt|seg|segmentation|mask){0,2}",
    "(?:class(?:es|ification)?|cls|category)(?:labels?|ids?)?",
    "parts?(?:labels?|ids?)?",
    "seg(?:ment(?:s|ation)?)?(?:labels?|ids?|gt)?",
    "(?:gt|groundtruth|true|truth|actual|annotation|target)(?:labels?|class(?:es)?|ids?)?",
    "obj(?:ect)?(?:tag|class|labels?)",
    "obj(?:ect)?(?:ids?|idx)",
    "pred(?:ict(?:ion|ed))?s?(?:labels?|class)?",
    "pid",
)
INTENSITY = (
    "intens(?:it(?:y|ies|a?e?t|e)?|idad)?",
    "refl(?:ectance|ectivity|ection)?",
    "remission",
    "strength",
    "amplitude",
    "i",
)
OWNER = "(?:scalar|field|vertex|points?|pts?)*"
SINGLE_PATTERNS = {
    "labels": tuple(f"{OWNER}{each}" for each in LABEL[:-1]),
    "intensity": tuple(f"(?:scalar|field|laser|lidar|points?)*{each}" for each in INTENSITY),
}
# Whole arrays: HDF5 data sets and members of an NPZ.
ARRAYS = {
    "points": (
        *("points?", "xyzs?", "pos", "positions?", "coor", "coords?", "coordinates?", "(?:point)?clouds?", "pts"),
        *("pc[dl]?", "data", "vert(?:ice)?s", "vertex", "loc(?:ation)?s?", "arr"),
    ),
    "normals": (f"{NORMAL}",),
    "colors": (f"(?:vertex|point)?{COLOR}", "rgbs"),
    "labels": (*SINGLE_PATTERNS["labels"], LABEL[-1]),
    "intensity": INTENSITY,
}
UNNAMED = ("", "index", "id", "unnamed", "row", "rowid", "rownames")  # of a column that numbers the rows
NEVER_MISSED = ("a", "alpha", "diffusealpha", "af")  # columns that no note mentions
T = TypeVar("T")
Places = dict[str, tuple[int, ...]]


def places(names: Sequence[str], extras: Extras = EXTRAS) -> Places:
    """The places of the columns of the points, and of the wanted extras that are there; {} without x, y and z.

    Of two columns of one name the first counts. Of labels all names, the likeliest first. "packed" is the place of a
    column that holds a whole colour.
    """
    points = _three([_spelled(name) for name in names], "points")
    return {"points": points, **extra_places(names, extras)} if points else {}


def extra_places(names: Sequence[str], extras: Extras) -> Places:
    """The same of the extras alone, whether x, y and z are among the names or not."""
    spelled = [_spelled(name) for name in names]
    found: Places = {}
    for what in extras:
        if group := _three(spelled, what) if what in THREE_PATTERNS else _single(spelled, SINGLE_PATTERNS[what]):
            found[what] = group if what != "intensity" else group[:1]
    if "colors" in extras and "colors" not in found and (packed := _single(spelled, ("rgba?",))):
        found["packed"] = packed[:1]
    return found


def known_columns(names: Iterable[str], extras: Extras = EXTRAS) -> set[str]:
    """The names that belong to wanted columns; empty where x, y and z are not among them."""
    names = list(names)
    return {names[place] for group in places(names, extras).values() for place in group}


def array_names(there: Collection[str], extras: Extras = EXTRAS) -> dict[str, list[str]]:
    """The names of arrays that may be the points and each of the wanted extras, of those that are there; the
    likeliest first."""
    letters = {name: _spelled(name).letters for name in there}
    found = {}
    for what in ("points", *extras):
        fitting = (name for pattern in ARRAYS[what] for name in there if re.fullmatch(pattern, letters[name]))
        if names := list(dict.fromkeys(fitting)):
            found[what] = names
    return found


def first_of_each(columns: Iterable[tuple[str, T]]) -> dict[str, T]:
    """By name; of two columns of one name the first counts."""
    first: dict[str, T] = {}
    for name, column in columns:
        first.setdefault(name, column)
    return first


def left_out(names: Sequence[str], used: Iterable[int] = ()) -> tuple[str, ...]:
    """A note that lists the names, but for those at places that are used; none if there is nothing to mention."""
    used = set(used)
    others = [name for i, name in enumerate(names) if i not in used and not _is_never_missed(name)]
    return (f"left out: {_listed(others)}",) if others else ()


def of_pieces(what: str, names: Iterable[str]) -> tuple[str, ...]:
    """A note that lists the names of a file's pieces, which some mean as labels; none of fewer than two names."""
    several = [*dict.fromkeys(filter(None, map(str.strip, names)))]
    return (f"names of {what} left out: {_listed(several)}",) if len(several) > 1 else ()


def _listed(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    listed = [quoted(name.strip())[1:-1] for name in names[:MOST_LISTED]]
    while len(listed) > 1 and sum(map(len, listed)) > LONGEST_LIST:
        listed.pop()
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return f"{', '.join(listed)}{more}"


def counting(names: Sequence[str]) -> int | None:
    """How many columns number the rows, where the names only count the columns; None for other names.

    `0,1,2` is what pandas writes of a table without names, `,0,1,2` with its index; R calls columns V1, V2, V3.
    """
    skipped = int(len(names) > 3 and _spelled(names[0]).letters in UNNAMED and not names[0].strip(' "').isdigit())
    found = [
        re.fullmatch(r"\W*([a-z_ .:-]{0,20}?)(\d{1,3})\W*", name[:LONGEST_NAME].lower()) for name in names[skipped:]
    ]
    words = [(match[1], int(match[2])) for match in found if match]
    if len(words) < 3 or len(words) < len(found):
        return None
    stem, first = words[0]
    counts = first in (0, 1) and (first == 0 or stem != "")
    return skipped if counts and words == [(stem, first + i) for i in range(len(words))] else None


def named_by_hand(columns: str | Iterable[str] | None) -> tuple[str, ...]:
    """The names in `columns=`, of `COLUMNS` or "_"; none for None or "".

    Raises:
        ValueError: another name, one twice, or no x, y and z.
    """
    if isinstance(columns, str):
        columns = columns.split(",") if columns else ()
    words = [word.strip() for word in columns or ()]
    names = [word for word in words if word != SKIPPED]
    known = [name for group in COLUMNS.values() for name in group]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no column '{unknown[0]}' (known: {', '.join(known)}, and _ for one to skip)")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"columns names {twice[0]} twice")
    for what, group in COLUMNS.items():
        there = [name for name in group if name in names]
        if words and len(there) < len(group) and (there or what == "points"):
            raise ValueError(f"columns must name {', '.join(group)}, got {','.join(words)}")
    return tuple(words)


def check_shape(rows: int, columns: int) -> None:
    """Raises Refusal where a table is wide and short, as one that is transposed is."""
    if rows < columns > MOST_ROWS:
        hint = "; give array.T if it is transposed" if 3 <= rows <= MOST_ROWS else ""
        raise Refusal(f"is no table of points, with {rows} rows and {columns} columns{hint}")


def check_width(names: Sequence[str], count: int) -> None:
    """Raises Refusal where a table has another count of columns than are named by hand."""
    if len(names) != count:
        raise Refusal(f"has {count} columns, but columns names {len(names)}: {','.join(names)}")


def check_units(names: Iterable[str]) -> None:
    """Raises Refusal where the names of x, y and z end with different units, such as "X [mm]" and "Z [m]"."""
    found: dict[str, str] = {}
    for name in names:
        if match := AT_END.search(_plain(name[:LONGEST_NAME]).lower()):
            found.setdefault(SAME_UNIT.get(match[1], match[1]), name.strip())
    if len(found) > 1:
        one, other, *_ = map(quoted, found.values())
        raise Refusal(f"has x, y and z in different units ({one} and {other}); give all in one unit")


def are_units(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Whether these cells below the names of columns give the units of x, y and z, or nothing for one.

    Raises:
        Refusal: those of x, y and z differ.
    """
    if len(cells) != len(names):
        return False
    axes = places(names, ()).get("points", ())
    if not axes or not all(UNITS_ALONE.fullmatch(cells[i].lower()) for i in axes):
        return False
    check_units(f"{names[i]} {cells[i]}" for i in axes)
    return any(re.search("[a-z]", cells[i].lower()) for i in axes)


def _is_never_missed(name: str) -> bool:
    return not re.search(r"[^\W_]", name) or _spelled(name).letters in NEVER_MISSED


class Spelled(NamedTuple):
    """A name's ASCII letters in lower case, and the digit that it ends with, unless it ends a longer
    number; and what is not ASCII in it, as in \u03c3x, the spread of x."""

    letters: str
    digit: str
    foreign: str  # what is not ASCII


def _spelled(name: str) -> Spelled:
    text = UNIT.sub("", _plain(name[:LONGEST_NAME]).lower())
    digit = re.search(r"(?<!\d)\d(?=\W*$)", text)
    return Spelled(re.sub(r"[^a-z]", "", text), digit[0] if digit else "", re.sub(r"[\x00-\x7f]", "", text))


def _plain(name: str) -> str:
    """A name with wide letters made narrow and without the accents of words; a letter that stands alone keeps its dot,
    as x does where it means a velocity."""
    if name.isascii():
        return name
    text = unicodedata.normalize("NFC", "".join(unicodedata.normalize("NFKC", c) if c in WIDE else c for c in name))
    return re.sub(r"[^\W\d_]{2,}", lambda word: "".join(map(_base, word[0])), text)


def _base(letter: str) -> str:
    base = unicodedata.normalize("NFD", letter)[0]
    return base if base.isascii() else letter


def _three(spelled: Sequence[Spelled], what: str) -> tuple[int, ...] | None:
    """The places of three columns whose names differ in nothing but the axis; plain names, and of them x, y and z
    themselves, come first."""
    groups: dict[tuple[str, ...], dict[int, int]] = {}
    for place, (letters, digit, foreign) in enumerate(spelled):
        # Those in two alphabets go together by what is foreign in them, or else whatever that is.
        for others in (("others", foreign), ("others",)) if foreign else ((),):
            for i, pattern in enumerate(THREE_PATTERNS[what]):
                if match := re.fullmatch(pattern, letters):
                    stem = (letters[: match.start(1)], letters[match.end(1) :], *others, *("other",) * i)
                    groups.setdefault(stem, {}).setdefault(WHICH[match[1]], place)
                    break
            else:
                if digit and re.fullmatch(NUMBERED[what], letters):
                    groups.setdefault((letters, *others), {}).setdefault(int(digit), place)
    ranked = sorted(groups.items(), key=lambda pair: (_rank(pair[0]), pair[0] != ("", ""), pair[0].count("other")))
    for _, group in ranked:
        for wanted in ((0, 1, 2), (1, 2, 3)):
            if group.keys() >= set(wanted):
                return tuple(group[which] for which in wanted)
    return None


def _rank(stem: tuple[str, ...]) -> int:
    """Plain names first, then those that say coordinate, then others."""
    return 0 if "others" not in stem else 1 if COORDINATE.search("".join(stem)) else 2 + (stem[-1] == "others")


def _single(spelled: Sequence[Spelled], patterns: Iterable[str]) -> tuple[int, ...]:
    """The places of the columns whose names fit, the first of each name, in the order of the patterns; plain names
    come first."""
    ranked = sorted(enumerate(spelled), key=lambda pair: bool(pair[1].foreign))
    there = first_of_each((each.letters, place) for place, each in ranked)
    if {"i", "j", "k"} <= there.keys():
        del there["i"]  # a normal, no intensity
    found = (place for pattern in patterns for letters, place in there.items() if re.fullmatch(pattern, letters))
    return tuple(dict.fromkeys(found))
