"""What `renderocc doctor --gpu` says of the kernels."""

from __future__ import annotations

from renderocc_model.base.findings import Findings

__all__ = ["check_gpu"]


def check_gpu(findings: Findings, device: str = "cuda", **options) -> None:
    """Compare each part of the GPU path with its reference, also what is remembered.

    Args:
        device: the device to check.
        options: further arguments of `gpu_check.check`.
    """
    try:
        import torch

        from renderocc_model.inference.gpu_check import check
    except ImportError as error:
        findings.fail("gpu", f"cannot be checked: {error}", "python3 -m pip install torch torchvision timm safetensors")
        return
    if device == "cuda" and not torch.cuda.is_available():
        findings.warn("gpu", "torch sees no GPU: no kernel was checked", "run this where the node runs on a GPU")
        return
    for finding in check(torch.device(device), anew=True, **options):
        if finding.kind == "sound":
            findings.ok(f"gpu {finding.part}", "computes what its reference computes")
        else:
            remedy = "the node runs without it; update driver, torch, Triton and torchvision, then check again"
            findings.warn(f"gpu {finding.part}", finding.sentence, remedy)
