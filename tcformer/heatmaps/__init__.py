"""Heat maps of keypoints: encoding, decoding, the flip test and the loss."""

from tcformer.heatmaps.decode import decode_heat_maps
from tcformer.heatmaps.encode import check_input_size, gaussian_heat_maps
from tcformer.heatmaps.flip import flip_test
from tcformer.heatmaps.loss import heat_map_loss

__all__ = ["check_input_size", "decode_heat_maps", "flip_test", "gaussian_heat_maps", "heat_map_loss"]
