/* core/util/bytes.h - fixed-width little- and big-endian fields, and arithmetic on sizes. */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t load_le16(const void *p) { uint16_t v; memcpy(&v, p, sizeof v); return le16toh(v); }
static inline uint32_t load_le32(const void *p) { uint32_t v; memcpy(&v, p, sizeof v); return le32toh(v); }
static inline uint64_t load_le64(const void *p) { uint64_t v; memcpy(&v, p, sizeof v); return le64toh(v); }
static inline uint16_t load_be16(const void *p) { uint16_t v; memcpy(&v, p, sizeof v); return be16toh(v); }
static inline uint32_t load_be32(const void *p) { uint32_t v; memcpy(&v, p, sizeof v); return be32toh(v); }
static inline uint64_t load_be64(const void *p) { uint64_t v; memcpy(&v, p, sizeof v); return be64toh(v); }
static inline void store_le16(void *p, uint16_t v) { v = htole16(v); memcpy(p, &v, sizeof v); }
static inline void store_le32(void *p, uint32_t v) { v = htole32(v); memcpy(p, &v, sizeof v); }
static inline void store_le64(void *p, uint64_t v) { v = htole64(v); memcpy(p, &v, sizeof v); }
static inline void store_be16(void *p, uint16_t v) { v = htobe16(v); memcpy(p, &v, sizeof v); }
static inline void store_be32(void *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, sizeof v); }
static inline void store_be64(void *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, sizeof v); }

static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* unit is not 0; the sum of value and unit must not pass UINT64_MAX. */
static inline uint64_t round_down(uint64_t value, uint64_t unit) { return value - value % unit; }
static inline uint64_t round_up(uint64_t value, uint64_t unit) { return round_down(value + unit - 1, unit); }
static inline uint64_t divide_up(uint64_t value, uint64_t unit) { return value / unit + (value % unit != 0); }

static inline bool is_power_of_2(uint64_t v) { return v && !(v & (v - 1)); }

/* Whether every byte is zero; length may be 0. */
bool bytes_are_zero(const void *bytes, size_t length);
