"""The model card that a bundle gets when its maker wrote none: what the manifest knows, for people."""

from __future__ import annotations

import json

from bindery.bundle import Manifest, Modality


def model_card(manifest: Manifest) -> str:
    rows = "\n".join(_row(name, modality) for name, modality in manifest.modalities.items())
    return f"""# {manifest.name} {manifest.version}

One space of {manifest.dimension} values (`{manifest.space}`).

| modality | kind | weights | logit scale | prompts | cosine to torch, least | component, most off |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

## Licence

{manifest.licence}

## Provenance

```json
{json.dumps(manifest.provenance, indent=1, sort_keys=True)}
```
"""


def _row(name: str, modality: Modality) -> str:
    artefact = modality.artefacts[0]
    scale = "" if modality.logit_scale is None else f"{modality.logit_scale:.3f}"
    prompts = ", ".join(f"`{prompt}`" for prompt in modality.prompts)
    return (
        f"| {name} | {modality.kind} | {artefact.weights} | {scale} | {prompts} "
        f"| {artefact.parity.cosine_min:.6f} | {artefact.parity.max_abs:.1e} |"
    )
