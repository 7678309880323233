"""Make the predictor that the node's parameters ask for, ready for its first frame."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from renderocc_model.network.packaged import checkpoint_file, packaged_checkpoint
from renderocc_ros.parameters import NodeConfig
from renderocc_ros.process import return_free_memory, signals_later

if TYPE_CHECKING:  # it takes seconds to load: the node is on the graph before that
    import torch


def make_predictor(config: NodeConfig, logger):
    """Load or make the network, move it to its device, and log what it is and where it runs.

    Raises:
        ValueError: the checkpoint cannot be used, or there is no such device.
    """
    logger.info("loading PyTorch")  # each of these lines comes before a step that can take long on a busy computer
    with signals_later():
        import cv2
        import torch

        from renderocc_model.inference.predictor import Predictor

    cv2.setNumThreads(1)  # images are decoded in parallel, one thread each
    threads = config.cpu_threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    path = checkpoint_file(config.checkpoint) if config.checkpoint else packaged_checkpoint(config.preset)
    logger.info(f"loading the network {path or config.preset}")
    if path is not None:
        predictor = Predictor(path, device=config.device, precision=config.precision, backend=config.backend)
        logger.info(f"network: {path}")
    else:
        predictor = Predictor.untrained(
            config.preset, device=config.device, precision=config.precision, backend=config.backend
        )
        logger.warning(
            f"network: UNTRAINED {config.preset!r}: its output means nothing; set the parameter 'checkpoint'"
        )
    if config.threshold:
        predictor.threshold = config.threshold
    on_gpu = predictor.device.type == "cuda"
    where = torch.cuda.get_device_name(predictor.device) if on_gpu else f"the CPU, {threads} threads"
    if config.device.startswith("intel"):
        where = config.device
    if on_gpu:
        leave_out_unsound_parts(config, predictor.device, logger)
    logger.info(f"making the network ready on {where}")
    predictor.warm_up()
    return_free_memory()
    by = "" if predictor.backend == "torch" else f" by {predictor.backend}"
    logger.info(f"running on {where}{by}, {predictor.precision}; occupied above {predictor.threshold:.3g}")
    return predictor


def leave_out_unsound_parts(config: NodeConfig, device: torch.device, logger, **options) -> None:
    """Compare what the node uses of the GPU with its references; leave out what is not sound, and log each as an error.

    Args:
        options: further arguments of `gpu_check.leave_out_unsound`.
    """
    from renderocc_model.inference.gpu_check import leave_out_unsound
    from renderocc_model.ops.left_out import GPU_PARTS

    logger.info("comparing the kernels of the GPU with their references")
    # Torchvision, which brings nvJPEG, need not be there if nothing asks for it.
    parts = [part for part in GPU_PARTS if part != "nvjpeg" or config.image_decoding == "cuda"]
    findings = leave_out_unsound(device, parts, **options)
    for finding in findings:
        if finding.kind != "sound":
            logger.error(finding.sentence)
    sound = sum(finding.kind == "sound" for finding in findings)
    remembered = sum(finding.remembered for finding in findings)
    logger.info(f"{sound} of {len(findings)} parts of the GPU path are sound; {remembered} remembered")
