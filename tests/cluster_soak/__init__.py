"""Minutes of servers on one log while NATS and they are killed, stopped, cut off and slowed: `scripts/soak --cluster`.

What was acknowledged is the yardstick, the log that all servers hold the judge.
"""
