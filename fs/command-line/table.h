/* fs/command-line/table.h - text in aligned columns, for people. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

typedef struct Table Table;

int table_new(size_t columns, Table **ret);
Table *table_free(Table *table); /* always NULL */
DEFINE_CLEANUP(Table, table_free)

/* Adds the next cell, row by row; the text is copied. right: numbers. */
int table_add(Table *table, const char *text);
int table_add_right(Table *table, const char *text);
/* Bytes as people read them: "512 B", "1.5 MiB". */
int table_add_size(Table *table, uint64_t bytes);

/* All rows, columns two spaces apart, no spaces at the ends of lines. The caller frees *ret. */
int table_format(const Table *table, char **ret, size_t *ret_length);

#define SIZE_TEXT_MAX 24
void size_format(uint64_t bytes, char text[static SIZE_TEXT_MAX]);
