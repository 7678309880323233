"""The node's output topics, made and given back together."""

import pytest
import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidTopicNameException
from rclpy.lifecycle import LifecycleNode
from system import new_domain

from renderocc_ros.output.publishers import OutputPublishers
from renderocc_ros.parameters import NodeConfig

pytestmark = pytest.mark.system


def test_where_one_topic_cannot_be_made_all_are_given_back():
    context = Context()
    rclpy.init(context=context, domain_id=new_domain())
    try:
        node = LifecycleNode("publishing", context=context, enable_rosout=False)
        before = set(node.publishers)
        with pytest.raises(InvalidTopicNameException):
            OutputPublishers(node, ("front", "a b"), NodeConfig())
        assert set(node.publishers) == before and not list(node._managed_entities)
        made = OutputPublishers(node, ("front",), NodeConfig())
        topics = sorted(publisher.topic_name for publisher in set(node.publishers) - before)
        names = ["classes", "grid", "markers", "points"]
        names += [f"rendered/front/{kind}" for kind in ("camera_info", "depth", "semantic")]
        assert topics == [f"/publishing/{name}" for name in names]
        made.destroy()
        assert set(node.publishers) == before
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
