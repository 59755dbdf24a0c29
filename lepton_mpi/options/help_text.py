"""What ``--help`` prints: usage, description, every position and option with its default, epilogue."""

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING

from lepton_mpi.options.kinds import OneOf
from lepton_mpi.options.option import Option

_INDENT = 26


def help_text(usage: str, description: str, options: Iterable[Option], epilogue: str) -> str:
    """Lines as wide as the terminal, up to 120 columns. ``--help`` and ``--version`` are added to the options."""
    width = max(60, min(120, shutil.get_terminal_size().columns))
    options = list(options)
    positions = [entry(o.flag, _text(o), width) for o in options if o.is_position]
    named = [
        entry(f"{option.flag} {_words(option)}", _text(option), width)
        for option in options
        if not option.is_position
    ]
    named += [
        entry("--help", "show this, and end", width),
        entry("--version", "show the versions of everything that is used, and end", width),
    ]
    parts = [f"usage: {usage}", textwrap.fill(description, width)]
    if positions:
        parts.append("\n".join(["words:", *positions]))
    parts.append("\n".join(["options:", *named]))
    if epilogue:
        parts += [textwrap.fill(paragraph, width) for paragraph in epilogue.split("\n\n")]
    return "\n\n".join(parts)


def entry(title: str, text: str, width: int) -> str:
    """An option and its text, in two columns; a title that is too long has a line of its own."""
    indent = " " * _INDENT
    # A default or a list of names stays readable where it is broken at blanks only.
    lines = textwrap.wrap(text, width - _INDENT, break_long_words=False, break_on_hyphens=False)
    title = f"  {title}"
    if len(title) > _INDENT - 2:
        return "\n".join([title, *(indent + line for line in lines)])
    return "\n".join([title.ljust(_INDENT) + lines[0], *(indent + line for line in lines[1:])])


def _words(option: Option) -> str:
    return f"[{option.kind.word}]" if option.is_switch else option.kind.word


def _text(option: Option) -> str:
    text = option.help
    if isinstance(option.kind, OneOf) and option.kind.word == "NAME":
        text += f"; one of {', '.join(option.kind.names)}"
    return text if option.default is MISSING else f"{text} (default: {option.shown_default()})"
