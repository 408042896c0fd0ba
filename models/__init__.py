"""The networks: tensors in, dataclasses out. Nothing here knows of files, settings or servers.

Shape letters, the same in every file: B batch, T frames, C channels, H height, W width, E experts, D features,
Q quality measurements, L tapped layers, N tokens.

`cards.py` and `graphs.py`, the same networks for OpenVINO, load no torch; `ensemble_model.py` stands on top and holds
the builder of each expert.
"""
