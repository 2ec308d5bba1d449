"""Texts as vectors of what they are written with: TF-IDF of runs of 3 to 5 characters inside words.

Cosines of them tell rows of one kind from others as well as the base's hidden states do or better,
without asking a model (docs/internals/decisions/0026-likeness-without-a-model.md), and they serve
any script and any spelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHARACTERS = (3, 5)


@dataclass(frozen=True)
class Terms:
    """What is known of a collection of texts: how rare each run of characters is in it.

    Runs that the collection doesn't have count for nothing in other texts, not even against them:
    what is compared belongs into it.
    """

    _vectorizer: Any

    @classmethod
    def of(cls, texts: Sequence[str]) -> Terms:
        """Count the runs of `texts`."""
        import numpy as np
        from sklearn.feature_extraction.text import TfidfVectorizer

        made = TfidfVectorizer(
            analyzer="char_wb", ngram_range=_CHARACTERS, sublinear_tf=True, dtype=np.float32
        )
        written = [text for text in texts if text.strip()]
        made.fit(written or ["none"])
        return cls(made)

    def vectors(self, texts: Sequence[str]) -> Any:
        """Return a sparse unit row for each text, [n, d]; of one that has no known run, zeros."""
        return self._vectorizer.transform(texts) if len(texts) else self._none()

    def _none(self) -> Any:
        return self._vectorizer.transform([""])[:0]
