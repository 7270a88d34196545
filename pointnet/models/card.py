"""What a saved model says of itself to people."""

from typing import Any


def model_card(model: Any, notes: str) -> str:
    """The card of a `Pretrained` in the Hugging Face Hub's layout: YAML between two lines of dashes, then Markdown."""
    kind, channels = type(model).__name__, model.arguments["in_channels"]
    scores = f"(B, {model.num_outputs}, N)" if model.scores_each_point else f"(B, {model.num_outputs or 'features'})"
    shown = {
        name: value for name, value in model.preprocessing.items() if value not in (None, "", []) and name != "familiar"
    }
    expected = "\n".join(f"- {name}: {value}" for name, value in shown.items())
    card = f"""---
library_name: pointnet-shared-mlp
tags:
- point-cloud
- pointnet
- 3d
---

# {kind}, {len(model.classes)} classes

{model.source} with {sum(p.numel() for p in model.parameters()):,} parameters.

```python
from pointnet.models import Pretrained

model = Pretrained.from_pretrained("...")  # this folder, or its name on the Hub
{"logits" if model.num_outputs else "features"} = model(points)  # (B, {channels}, N) float32 -> {scores}
```

It expects of points:

{expected}

Its classes, in the order of the logits: {", ".join(model.classes) or "none, it is an encoder alone"}.
"""
    return f"{card}\n{notes}\n" if notes else card
