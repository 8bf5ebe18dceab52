"""Read what the callbacks TensorBoard and MLflow wrote."""

import struct


def events(folder):
    """The events of a folder's files, sorted by file name, as TensorBoard reads them.

    A record is: its length (8 bytes), a checksum of the length (4), the event, its checksum (4).
    """
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def scalars(folder):
    """{tag: {step: value}} as TensorBoard shows it: a start hides events at later steps."""
    found = {}
    for event in events(folder):
        if event.session_log.status == 1:  # START
            for points in found.values():
                for step in [step for step in points if step >= event.step]:
                    del points[step]
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def mlflow_run(hook):
    """The client, the run of the callback, and its metrics as {name: {epoch: value}}."""
    from mlflow import MlflowClient

    client = MlflowClient(hook.uri)
    made = client.get_run(hook.run_id)
    metrics = {
        name: {point.step: point.value for point in client.get_metric_history(hook.run_id, name)}
        for name in made.data.metrics
    }
    return client, made, metrics
