"""Shared nouns of Conch: settings, artefacts, data, tensors, metrics, errors.

Pure: arrays in, arrays out. No torch, no Triton, nothing happens on import.

Axis letters used in every docstring and shape comment of the project:

    B batch     U users        I items       K candidates    k returned
    D embedding F features     E edges       H heads         L history    X excluded
"""
