"""Who answers the client: the proxy, the stages and the flip, the control process, the command
line.
"""
