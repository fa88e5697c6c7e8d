"""What a rank says that only lost its peer, or waited for one in vain: it is not the cause of anything."""

import re

PEER_LOSS = re.compile(
    r"connection closed by peer|connection reset by peer|broken pipe|socket (?:timeout|closed)|connect(?:ion)? refused"
    r"|remote process exited|ncclRemoteError|ncclSystemError|NCCL communicator was aborted|watchdog"
    r"|timed? ?out waiting|collective operation timeout|application timeout|wait timeout|peer (?:closed|failure)"
    r"|failed to recv|recvValue failed|store.{0,40}timeout|heartbeat"
    r"|connectFullMesh failed|rendezvous.{0,40}(?:closed|timeout)",
    re.IGNORECASE,
)


def is_peer_loss(text: str) -> bool:
    """Whether the text is that of a rank that lost its peer."""
    return bool(PEER_LOSS.search(text))
