"""Training: from rows to an adapter, packed, checked before the first step, exact on resume."""
