import pytest


@pytest.mark.sockserver(timeoutt=1.0)
def test_misspelt_option(tcp_server):
    pass
