"""Which columns of texts are categories, and which are something else that has to be asked about.

A column is numbers or texts; one that has both is refused by the place of its first odd cell. Texts that are numbers or
dates in another notation are no categories: in the order of their letters, $1,000 would come before $900.
"""

from typing import TYPE_CHECKING

from lepton_mpi.errors import DataError
from lepton_mpi.prepare.known_categories import Unknown, together
from lepton_mpi.prepare.plain_numbers import plain_number
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.class_folders import IMAGES, SOUNDS
from lepton_mpi.prepare.readers.csv_sample import FOOTER_MAX
from lepton_mpi.prepare.written_dates import orders_of
from lepton_mpi.prepare.written_numbers import (
    are_of_several_units,
    are_written_numbers,
    is_one_unit,
    written_number,
)
from lepton_mpi.wording import one_line

if TYPE_CHECKING:
    from lepton_mpi.prepare.survey import BlockFacts

# A column with more different texts than this, and more than half as many as rows, holds names rather than categories.
_CATEGORIES_MAX = 50
# Columns that a message names.
_SHOWN = 6


def categories_of(facts: "list[BlockFacts]", source: Source) -> dict[int, tuple[str, ...]]:
    """Texts of every column that is categories, by feature. Raises DataError for columns that are not."""
    texts_of = {
        feature: sorted({text for fact in facts for text in fact.words.get(feature, ())})
        for feature in sorted({feature for fact in facts for feature in fact.words})
    }
    if source.known is not None:
        _check_known(facts[0].name, facts, texts_of, source)
        return dict(source.known)
    in_question = [feature for feature in texts_of if feature not in source.categorical]
    for feature in in_question:
        _check_one_kind(facts, source, feature)
    where = facts[0].name
    _ask_about_numbers(where, {f: texts_of[f] for f in in_question}, source)
    _ask_about_dates(where, {f: texts_of[f] for f in in_question}, source)
    _ask_about_files(where, {f: texts_of[f] for f in in_question}, source)
    rows = sum(len(fact.missing) for fact in facts)
    for feature in in_question:
        texts = texts_of[feature]
        if len(texts) > max(_CATEGORIES_MAX, rows // 2):
            raise DataError(
                f"{where}: column {source.columns[feature]!r}: {len(texts)} different texts in {rows} rows are no "
                "categories; --drop-columns leaves the column out, --categorical takes it as it is"
            )
    return {feature: tuple(_in_order(texts)) for feature, texts in texts_of.items()}


def _check_known(
    where: str, facts: "list[BlockFacts]", texts_of: dict[int, list[str]], source: Source
) -> None:
    """Raise DataError for texts where the file of --like has numbers, and for cells that are none of its categories."""
    known = source.known or {}
    found = {
        f: Unknown() + Unknown(0, tuple(texts)) for f, texts in texts_of.items() if f not in known
    }
    if not source.unknown_is_missing:
        found |= together(fact.unknown for fact in facts)
    if found:
        shown = [f"column {source.columns[f]!r}: {odd.examples}" for f, odd in found.items()]
        raise DataError(
            f"{where}: expected numbers and categories of the file of --like, got {'; '.join(shown)}; --unknown missing takes "
            "unknown categories as missing"
        )


def _in_order(texts: list[str]) -> list[str]:
    """By their numbers if all are numbers, else by their letters."""
    if all(plain_number(text) is not None for text in texts):
        return sorted(texts, key=plain_number)
    return sorted(texts)


def _check_one_kind(facts: "list[BlockFacts]", source: Source, feature: int) -> None:
    numbers = sum(int(fact.number_cells[feature]) for fact in facts)
    if not numbers:
        return
    fact = next(fact for fact in facts if feature in fact.first_text)
    place, text, left = fact.first_text[feature]
    name = source.columns[feature]
    is_last = fact is [one for one in facts if one.name == fact.name][-1]
    footer = f", --footer {left} leaves out the last lines" if is_last and source.format == "CSV" and left <= FOOTER_MAX else ""  # fmt: skip
    number = written_number(text, source.decimal)
    is_alike = number is not None and is_one_unit({number.affix, ""})  # as the plain ones
    reads = f"--numbers {name} reads it, " if is_alike else ""
    raise DataError(
        f"{fact.name}: {place}, column {name!r}: expected a number as in {numbers} other rows, got "
        f"{text[:40]!r}; {reads}--missing-words takes such words as missing, --categorical {name!r} the column as "
        f"categories{footer}"
    )


def _ask_about_files(where: str, texts_of: dict[int, list[str]], source: Source) -> None:
    for feature, texts in texts_of.items():
        if all(text.lower().endswith((*IMAGES, *SOUNDS)) for text in texts):
            name = source.columns[feature]
            raise DataError(
                f"{where}: column {name!r}: names of files, such as {texts[0][:40]!r}; --files {name} --folder FOLDER reads the "
                "images or sounds that they name, --drop-columns leaves the column out, --categorical takes it as it is"
            )


def _ask_about_numbers(where: str, texts_of: dict[int, list[str]], source: Source) -> None:
    """Raise DataError if texts are numbers as people write them."""
    other = {".": ",", ",": "."}[source.decimal]
    found = {
        f: texts for f, texts in texts_of.items() if are_written_numbers(texts, source.decimal)
    }
    if found:
        names = _names(found, source)
        raise DataError(
            f"{where}: {_examples(found, source)}: categories or numbers? --numbers {names} reads numbers, --categorical "
            f"{names} takes the texts as categories"
        )
    found = {f: texts for f, texts in texts_of.items() if are_written_numbers(texts, other)}
    if found:
        plain = all(plain_number(text.replace(other, ".")) is not None for texts in found.values() for text in texts)  # fmt: skip
        names = _names(found, source)
        raise DataError(
            f"{where}: {_examples(found, source)}: categories or numbers? --decimal {other}"
            f"{'' if plain else f' --numbers {names}'} reads numbers, --categorical {names} takes the texts as categories"
        )

    found = {
        f: texts for f, texts in texts_of.items() if are_of_several_units(texts, source.decimal)
    }
    if found:
        names = _names(found, source)
        raise DataError(
            f"{where}: {_examples(found, source)}: numbers of several units, which are not compared: --categorical {names} "
            f"takes the texts as categories, --drop-columns {names} leaves them out"
        )


def check_units(facts: "list[BlockFacts]") -> None:
    """Raise DataError if the numbers that ``--numbers`` reads in a column have several units."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for fact in facts:
        for column, units in fact.units.items():
            seen = found.setdefault(column, {})
            seen.update({unit: first for unit, first in units.items() if unit not in seen})
    for column, units in found.items():
        if len(units) > 1 and not is_one_unit(units):
            (_, first), (place, odd) = list(units.values())[:2]
            raise DataError(
                f"{place}, column {column!r}: expected a number of the same unit as {first!r}, got {odd!r}: --numbers "
                "compares numbers of one unit; --drop-columns leaves the column out, --categorical takes texts as categories"
            )


def _ask_about_dates(where: str, texts_of: dict[int, list[str]], source: Source) -> None:
    """Raise DataError if texts are dates or times."""
    found = {f: texts for f, texts in texts_of.items() if orders_of(texts)}
    if not found:
        return
    words = []
    for feature, texts in found.items():
        orders = orders_of(texts)
        sign = "=" + "|".join(orders) if len(orders) > 1 else ""
        words.append(source.columns[feature] + sign)
    raise DataError(
        f"{where}: {_examples(found, source)}: categories or dates? --dates {','.join(words)} reads dates, as seconds or by "
        f"--dates-as parts as year, month and so on; --categorical {_names(found, source)} takes the texts as categories"
    )


def _names(features: dict[int, list[str]], source: Source) -> str:
    return ",".join(source.columns[feature] for feature in features)


def _examples(found: dict[int, list[str]], source: Source) -> str:
    """Columns with a text of each."""
    shown = [
        f"{source.columns[feature]!r} with {len(texts)} texts such as {one_line(texts[0])[:30]!r}"
        for feature, texts in list(found.items())[:_SHOWN]
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"column{'s' * (len(found) > 1)} {', '.join(shown)}{more}"
