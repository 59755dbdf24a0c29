"""What ``prepare --stream`` keeps in its file, and ``--stream --like FILE`` applies to other texts: what each token stands for."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import DataError
from lepton_mpi.prepare.options import Options

_TO_SCORE = (0.0, 0.0, 1.0)
# Tokens that a message names.
_SHOWN = 12


@dataclass(frozen=True)
class StreamEncoding:
    """``kind`` is ``characters`` or ``bytes``; ``vocabulary`` the bytes of each token in the order of their ids."""

    kind: str
    context: int
    vocabulary: tuple[bytes, ...]

    def applied_to(self, options: Options) -> Options:
        """The user's options, with the kind of tokens; its context, and all for testing, if nobody says others."""
        default = next(f.default for f in dataclasses.fields(Options) if f.name == "context")
        context = self.context if options.context == default else options.context
        return dataclasses.replace(
            options, tokens=self.kind, context=context, split=options.split or _TO_SCORE
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
        facts = {
            "version": 1,
            "stream": {"kind": self.kind, "context": self.context},
            "vocabulary": [token.decode("latin-1") for token in self.vocabulary],
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
        if kind not in ("characters", "bytes") or type(context) is not int or context < 1:
            raise ValueError("expected characters or bytes, and a context")
        vocabulary = tuple(token.encode("latin-1") for token in facts["vocabulary"])
        return StreamEncoding(kind, context, vocabulary)
