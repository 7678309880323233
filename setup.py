from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

package_name = "renderocc_ros"
ROOT = Path(__file__).resolve().parent  # of the sources: `colcon build --symlink-install` runs a link to this file


def requirements(name: str) -> list[str]:
    """The requirements in a file beside this one, without comments."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line]


# What the commands need that run without a network. PyTorch and the rest are extras, so that installing this package
# never replaces the PyTorch of a vehicle, which often comes from elsewhere (Jetson); `renderocc doctor` says what is
# missing. colcon reads neither list: package.xml and requirements.txt are for rosdep and pip there.
ALWAYS = ("numpy", "ruamel.yaml")
NETWORK = requirements("requirements.txt")
TRAINING = requirements("requirements-train.txt")
EXPORT = requirements("requirements-export.txt")
VIDEO = requirements("requirements-video.txt")
VIEW = requirements("requirements-view.txt")
OPENVINO = requirements("requirements-openvino.txt")
RAY = requirements("requirements-ray.txt")

setup(
    name=package_name,
    version="0.1.0",
    # `training` keeps its folder's name. Installed as another one by package_dir, it is found after `pip install` and
    # after both kinds of `colcon build`, but no more by mypy and editors after `pip install -e`, and twice in the
    # source tree, under both names, with two copies of each class.
    packages=find_packages(include=["renderocc_model*", "renderocc_ros*", "training*"]),
    package_data={
        "renderocc_model": ["weights/*.safetensors", "py.typed", "__init__.pyi"],
        "training": ["py.typed", "label/label_sets/*.yaml"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/launch", glob("launch/*.launch.py")),
        (
            f"share/{package_name}/config",
            glob("config/*.yaml") + glob("config/*.rviz") + glob("config/*.xml") + glob("config/*.json"),
        ),
        (f"share/{package_name}/config/rigs", glob("config/rigs/*.yaml")),
        (f"share/{package_name}/config/sros2", glob("config/sros2/*.xml")),
        (f"share/{package_name}/config/study", glob("config/study/*.yaml")),
    ],
    python_requires=">=3.10",
    install_requires=[line for line in NETWORK if line.startswith(ALWAYS)],
    extras_require={
        "network": NETWORK,
        "train": [*NETWORK, *TRAINING],
        "export": [*NETWORK, *EXPORT],
        "video": [*NETWORK, *VIDEO],
        "view": [*NETWORK, *VIEW],
        "openvino": [*NETWORK, *OPENVINO],
        "ray": [*NETWORK, *RAY],
        "test": [*NETWORK, *requirements("requirements-test.txt")],
    },
    zip_safe=False,  # weights and configuration are opened as files
    maintainer="RenderOcc for ROS 2 developers",
    maintainer_email="renderocc@example.com",
    description="Camera-only semantic 3D occupancy for ROS 2, learned from 2D labels.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "renderocc = renderocc_model.cli:main",
            "renderocc_node = renderocc_ros.start:main",
        ],
    },
)
