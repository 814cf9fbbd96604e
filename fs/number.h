/* fs/number.h - numbers and sizes as people write them in options. */
#pragma once

#include <stdint.h>

/* Digits of that base and nothing else, at most max; else -EINVAL. */
int number_parse(const char *text, int base, uint64_t max, uint64_t *ret);

/* Decimal bytes, with K, M, G or T behind them for multiples of 1024. */
int size_parse(const char *text, uint64_t max, uint64_t *ret);
