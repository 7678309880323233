from glob import glob

from setuptools import find_packages, setup

package_name = "renderocc_ros"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(include=["renderocc_model*", "renderocc_ros*", "training*"]),
    package_data={"renderocc_model": ["weights/*.safetensors"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/launch", glob("launch/*.launch.py")),
        (f"share/{package_name}/config", glob("config/*.yaml") + glob("config/*.rviz") + glob("config/*.xml")),
        (f"share/{package_name}/config/rigs", glob("config/rigs/*.yaml")),
        (f"share/{package_name}/config/sros2", glob("config/sros2/*.xml")),
        (f"share/{package_name}/config/study", glob("config/study/*.yaml")),
    ],
    python_requires=">=3.10",
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
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
