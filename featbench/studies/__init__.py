"""Studies: measurements that papers show beside their tables of scores, one file a study.

The other files are shared by several studies: `natural` (patches of photographs), `coding` and `regressor` (sparse
codes, and encoders that predict them), `costs` (times), `series` (a comparison for each value of a quantity), `toys`
and `surfaces` (points of the plane), `page` (how findings are printed). `gallery` finds the filters that
`featbench filters` draws.
"""

from __future__ import annotations

STUDIES = {
    "codes": "predicted against optimal sparse codes: how near they come, and what they cost",
    "energy": "the energy surfaces of PCA, K-means, auto-encoder and sparse coding on points of the plane",
    "filters": "how localised, oriented and band-pass learned filters are, and how smooth their map",
    "invariance": "how far a patch's descriptor moves when the patch is shifted and turned",
    "lista": "how near LISTA and its baselines come to optimal sparse codes, by the number of steps",
    "samples": "learning curves: test error against the number of training images",
    "size": "accuracy against the number of filters",
    "stability": "how often a unit of a sparse code changes its sign from one video frame to the next",
}
"""Every study with its summary. Each is a module of featbench.studies, imported when the study is run."""
