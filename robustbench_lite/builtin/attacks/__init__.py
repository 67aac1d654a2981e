"""Attacks and controls that ship with robeval: one file each, an ordinary plug-in.

The specs are read without importing torch; an attack imports it when it runs.
"""

from collections.abc import Iterable

from robustbench_lite import AttackSpec, hookimpl

from . import (
    apgd,
    autoattack,
    boundary,
    corruption,
    corruptions,
    cw,
    ddn,
    deepfool,
    fab,
    fgsm,
    fmn,
    gaussian_noise,
    hopskipjump,
    mi_fgsm,
    nes,
    one_pixel,
    pgd,
    quantise,
    random_pixel,
    salt_and_pepper,
    sigma_zero,
    sign_noise,
    single_pixel,
    sparse_rs,
    spatial,
    spsa,
    square,
    standard,
    uniform_noise,
)


@hookimpl
def robeval_attacks() -> Iterable[AttackSpec]:
    """Every built-in attack, then every built-in control."""
    return (
        standard.SPEC,
        fgsm.SPEC,
        pgd.SPEC,
        apgd.SPEC,
        autoattack.SPEC,
        mi_fgsm.SPEC,
        deepfool.SPEC,
        cw.SPEC,
        ddn.SPEC,
        fmn.SPEC,
        fab.SPEC,
        sigma_zero.SPEC,
        square.SPEC,
        nes.SPEC,
        spsa.SPEC,
        sparse_rs.SPEC,
        one_pixel.SPEC,
        single_pixel.SPEC,
        boundary.SPEC,
        hopskipjump.SPEC,
        quantise.SPEC,
        spatial.SPEC,
        corruption.SPEC,
        corruptions.SPEC,
        uniform_noise.SPEC,
        sign_noise.SPEC,
        gaussian_noise.SPEC,
        salt_and_pepper.SPEC,
        random_pixel.SPEC,
    )
