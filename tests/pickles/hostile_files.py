"""What the hostile corpus has so far, and the one way to add to it."""

FILES: dict[str, bytes] = {}
MANIFEST: dict[str, dict[str, object]] = {}
LARGEST = 4096
EFFECTS = {"exec", "import", "network", "file", "dos", "deceive", "nested", "memory", "broken"}


def add(
    name: str,
    content: bytes,
    technique: str,
    made: str,
    effect: str = "exec",
    container: str = "raw",
    reference: str = "",
    symbols: tuple[str, ...] = (),
    large: int = LARGEST,
) -> None:
    """One file. `large` allows more than the usual size where the size is the point."""
    assert name not in FILES and name.lower() not in {n.lower() for n in FILES}, name
    assert len(content) <= large, (name, len(content))
    assert effect in EFFECTS, effect
    FILES[name] = content
    MANIFEST[name] = {
        "technique": technique,
        "made": made,
        "effect": effect,
        "container": container,
        "reference": reference,
        "symbols": list(symbols),
    }
