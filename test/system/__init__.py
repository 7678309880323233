"""One harness for whole-system tests and campaigns: real programs in processes of their own, heard and fed over ROS.

program.py    a program in its own process: what it prints, what it holds, how it ends; ROS domains
processes.py  what Linux says of a process: memory, threads, files, processor time; shared_memory.py what Fast DDS has
              in /dev/shm, and whose it is
listener.py   an ordinary ROS program in this process: subscriptions, service calls
cameras.py    scenes, and the publishers of their cameras and transforms
messages.py   stamps and transforms as messages
networks.py   checkpoints to run: an untrained `tiny`, and one small enough to answer in tens of milliseconds
waiting.py    waiting for a condition
"""

from .cameras import MOUNTS, CameraPublishers, Frame, Scene, as_raw, noise_cameras, pixels_of
from .listener import Listener
from .messages import LATCHED, SECOND, stamp_message, stamp_ns, transform_message
from .networks import small_network, untrained_network
from .processes import Holdings, address_space, cpu_seconds, holdings_of
from .program import ROOT, Program, new_domain, node_command, program_environment
from .shared_memory import all_segments, left_of, segments_of
from .waiting import PATIENCE, wait_for, wait_until

__all__ = [
    "LATCHED",
    "MOUNTS",
    "PATIENCE",
    "ROOT",
    "SECOND",
    "CameraPublishers",
    "Frame",
    "Holdings",
    "Listener",
    "Program",
    "Scene",
    "address_space",
    "all_segments",
    "as_raw",
    "cpu_seconds",
    "holdings_of",
    "left_of",
    "new_domain",
    "node_command",
    "noise_cameras",
    "pixels_of",
    "program_environment",
    "segments_of",
    "small_network",
    "stamp_message",
    "stamp_ns",
    "transform_message",
    "untrained_network",
    "wait_for",
    "wait_until",
]
