"""How clients and their helpers say that they could not reach another machine."""

import re

# Go's words for what connect(2), read(2) and the resolver say (its net and net/http packages),
# those of ssh(1), and those with which a proxy says that nothing is behind it. What a server
# that was reached refuses is not among them.
_AWAY = (
    "(?i)connection refused|connection reset by peer|connection timed out|operation timed out"
    "|no such host|server misbehaving|network is unreachable|network is down|host is down"
    "|no route to host|i/o timeout|tls handshake timeout|client.timeout exceeded"
    "|could not resolve hostname|name or service not known|name does not resolve"
    "|temporary failure in name resolution|kex_exchange_identification: |connection closed by "
    "|connection lost|software caused connection abort|use of closed network connection"
    r'|"https?://[^"]*": (?:unexpected )?eof\b|code = unavailable\b'
    "|bad gateway|service unavailable|gateway time-?out|service temporarily unavailable"
)


def is_away(line: str) -> bool:
    """Say whether a line tells that another machine could not be reached, or went away."""
    return re.search(_AWAY, line) is not None
