"""Image encoders, which turn frames into the particles or codes that agents see.

To add one: its `EncoderModel`, its section in `encoder`, and lines in `common.foundation.registry`,
of those that can be trained and of trained ones as observations use them.
"""
