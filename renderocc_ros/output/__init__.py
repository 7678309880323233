"""From an occupancy volume to messages and files.

`publishers` offer the topics and send only what somebody subscribes to; `messages` turn a volume into arrays and bytes,
and `view_schedule` says when there is time for a rendered view. `saving` writes the files of ~/save.
`diagnostics` reports the state of all parts.
"""
