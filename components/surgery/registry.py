"""All surgeries, in the order in which they are applied.

Versions first, since the others need a modern opset; then folding, which uncovers the patterns; branches before what
is in them; the data-dependent operators last, when everything around them is constant or static. `operate` sweeps
over the list until nothing changes.
"""

from components.surgery.surgeries import (
    fold_constants,
    row01_resize_scales,
    row02_run_time_scales,
    row03_resize_antialias,
    row04_resize_cubic,
    row05_resize_crop,
    row06_resize_aspect_ratio,
    row07_float64,
    row08_uint8_input,
    row09_uint8,
    row10_integer_types,
    row12_non_max_suppression,
    row13_efficient_nms,
    row14_roi_align,
    row15_non_zero,
    row16_top_k,
    row18_if,
    row19_sequences,
    row25_zero_point,
    row26_int32_bias,
    row27_integer_operators,
    row31_pad,
    row32_dilated_max_pool,
    row33_max_pool_indices,
    row34_loop,
    row36_mixed_precision,
    row41_initializers,
    row42_upsample,
)
from components.surgery.surgery import Surgery

SURGERIES: tuple[Surgery, ...] = (
    row42_upsample.SURGERY,
    row41_initializers.SURGERY,
    fold_constants.SURGERY,
    row36_mixed_precision.SURGERY,
    row18_if.SURGERY,
    row34_loop.SURGERY,
    row19_sequences.SURGERY,
    row03_resize_antialias.SURGERY,
    row05_resize_crop.SURGERY,
    row06_resize_aspect_ratio.SURGERY,
    row04_resize_cubic.SURGERY,
    row08_uint8_input.SURGERY,
    row09_uint8.SURGERY,
    row10_integer_types.SURGERY,
    row07_float64.SURGERY,
    row01_resize_scales.SURGERY,
    row02_run_time_scales.SURGERY,
    row31_pad.SURGERY,
    row33_max_pool_indices.SURGERY,
    row32_dilated_max_pool.SURGERY,
    row13_efficient_nms.SURGERY,
    row16_top_k.SURGERY,
    row27_integer_operators.SURGERY,
    row26_int32_bias.SURGERY,
    row25_zero_point.SURGERY,
    row15_non_zero.SURGERY,
    row12_non_max_suppression.SURGERY,
    row14_roi_align.SURGERY,
)
