"""Student's t and what the pooling of variances needs, to ten digits; scipy is no dependency of this program."""

import math
from functools import cache
from statistics import NormalDist

LARGE_DF = 1e6
"""From here on Student's t is the normal distribution."""


@cache
def t_quantile(probability: float, df: float) -> float:
    """The value below which Student's t with `df` degrees of freedom is with this probability."""
    if df >= LARGE_DF:
        return NormalDist().inv_cdf(probability)
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < probability else (low, middle)
    return (low + high) / 2


def t_cdf(value: float, df: float) -> float:
    """The probability that Student's t with `df` degrees of freedom is below `value`, which is not negative."""
    return 1 - incomplete_beta(df / 2, 0.5, df / (df + value * value)) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Lentz)."""
    if x == 0:
        return 0.0
    if x > (a + 1) / (a + b + 2):  # there the fraction converges slowly, and on the other side quickly
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a * _beta_fraction(a, b, x)


def _beta_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    result = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            result *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return result


def digamma(x: float) -> float:
    """The derivative of log Γ: recurrence up to 10, then its asymptotic series."""
    shift = 0.0
    while x < 10:
        shift -= 1 / x
        x += 1
    inverse = 1 / (x * x)
    series = inverse * (1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse / 240)))
    return shift + math.log(x) - 0.5 / x - series


def trigamma(x: float) -> float:
    """The second derivative of log Γ."""
    shift = 0.0
    while x < 10:
        shift += 1 / (x * x)
        x += 1
    inverse = 1 / (x * x)
    series = inverse / x * (1 / 6 - inverse * (1 / 30 - inverse * (1 / 42 - inverse / 30)))
    return shift + 1 / x + inverse / 2 + series


def trigamma_inverse(value: float) -> float:
    """The x > 0 at which trigamma is `value`: it falls, and is between 1 / x and 1 / (x - 1/2)."""
    low, high = 1 / value, 0.5 + 1 / value
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if trigamma(middle) > value else (low, middle)
    return (low + high) / 2
