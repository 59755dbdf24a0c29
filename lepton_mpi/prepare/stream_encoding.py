"""What ``prepare --stream`` keeps in its file, and ``--stream --like FILE`` applies to other texts: what each token stands for.

Of byte-level BPE it is the content of a ``tokenizer.json``, which says both that and how a text is encoded.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lepton_mpi.data import tokenizer_facts
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options

_TO_SCORE = (0.0, 0.0, 1.0)
# Tokens that a message names.
_SHOWN = 12


@dataclass(frozen=True)
class StreamEncoding:
    """What tokens of a text are.

    Attributes
    ----------
    kind : {"characters", "bytes", "bpe"}
    context : int
        Tokens of a row.
    vocabulary : tuple of bytes
        What each token stands for, in the order of their ids.
    separator : str
        What stands between documents, and belongs to the one before; empty for nothing.
    tokenizer : dict or None
        The content of a ``tokenizer.json`` that ``tokenizer_facts.checked`` has let pass; of BPE alone.
    """

    kind: str
    context: int
    vocabulary: tuple[bytes, ...]
    separator: str = ""
    tokenizer: dict[str, Any] | None = None

    def applied_to(self, options: Options) -> Options:
        """The user's options, with the kind of tokens; context, separator, and all for testing, if nobody says others.

        Raises ConfigurationError for what both decide.
        """
        for name in ("vocabulary", "tokenizer"):
            if getattr(options, name) is not None:
                raise ConfigurationError(f"--{name}: is decided by the file of --like")
        defaults = {field.name: field.default for field in dataclasses.fields(Options)}
        if options.tokens not in (defaults["tokens"], self.kind):
            raise ConfigurationError(
                f"--tokens: is decided by the file of --like, {self.kind}, got {options.tokens}"
            )
        context = self.context if options.context == defaults["context"] else options.context
        separator = options.document_separator or self.separator or None
        return dataclasses.replace(
            *(options,),
            tokens=self.kind,
            context=context,
            document_separator=separator,
            split=options.split or _TO_SCORE,
        )

    def ids_of(self, tokens: Sequence[bytes], name: str) -> list[int]:
        """Ids of tokens. Raises DataError for those that it has not; ``name`` is the text's."""
        ids = {token: number for number, token in enumerate(self.vocabulary)}
        unknown = [token for token in tokens if token not in ids]
        if unknown:
            shown = ", ".join(ascii(token.decode("utf-8", "replace")) for token in unknown[:_SHOWN])
            raise DataError(
                f"{name}: expected a text of the {len(ids)} tokens of the file of --like, got others: {shown}"
                f"{' …' * (len(unknown) > _SHOWN)}"
            )
        return [ids[token] for token in tokens]

    def as_bytes(self) -> bytes:
        """JSON, with what readers of all encodings ask for."""
        separator = {"separator": self.separator} if self.separator else {}
        tokens: dict[str, Any] = {"tokenizer": self.tokenizer}
        if self.tokenizer is None:
            tokens = {"vocabulary": [token.decode("latin-1") for token in self.vocabulary]}
        facts = {
            "version": 1,
            "stream": {"kind": self.kind, "context": self.context, **separator},
            **tokens,
            "options": {},
            "target": TargetScale.identity(0).as_json(),
        }
        return json.dumps(facts).encode()

    @staticmethod
    def from_bytes(raw: bytes) -> "StreamEncoding":
        """Raises ValueError, LookupError, TypeError or AttributeError for what ``as_bytes`` has not made."""
        facts: dict[str, Any] = json.loads(raw)
        if "stream" not in facts:
            raise ValueError("rows were prepared, no text in one piece: leave out --stream")
        if facts["version"] != 1:
            raise ValueError(
                f"expected version 1, got {facts['version']}: a newer lepton_mpi reads it"
            )
        kind, context = facts["stream"]["kind"], facts["stream"]["context"]
        if kind not in ("characters", "bytes", "bpe") or type(context) is not int or context < 1:
            raise ValueError("expected characters, bytes or bpe, and a context")
        separator = facts["stream"].get("separator", "")
        if not isinstance(separator, str):
            raise ValueError("expected a text as the separator")
        separator.encode()  # a lone surrogate is no text: a UnicodeEncodeError is a ValueError
        if kind == "bpe":
            tokenizer = tokenizer_facts.checked(facts["tokenizer"])
            known = tokenizer_facts.vocabulary_of(tokenizer)
            return StreamEncoding(kind, context, known, separator, tokenizer)
        vocabulary = tuple(token.encode("latin-1") for token in facts["vocabulary"])
        return StreamEncoding(kind, context, vocabulary, separator)
