"""What third parties need to prove their backends right."""

from flexgnn.testing.backend_tests import TierBackendTests, assert_same_bits, read_back, sample

__all__ = ["TierBackendTests", "assert_same_bits", "read_back", "sample"]
