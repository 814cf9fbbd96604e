#include "command-line/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

typedef struct Cell {
        char *text;
        int width; /* characters, not bytes */
        bool right;
} Cell;

struct Table {
        size_t columns;
        Cell *cells;
        size_t count;
};

int table_new(size_t columns, Table **ret) {
        Table *table = calloc(1, sizeof *table);

        if (!table)
                return -ENOMEM;
        table->columns = columns;
        *ret = table;
        return 0;
}

Table *table_free(Table *table) {
        if (table) {
                for (size_t i = 0; i < table->count; i++)
                        free(table->cells[i].text);
                free(table->cells);
        }
        free(table);
        return NULL;
}

/* Names may be of any script: count what is not a continuation byte of UTF-8. */
static int count_characters(const char *text) {
        int count = 0;

        for (; *text; text++)
                count += ((unsigned char) *text & 0xc0) != 0x80;
        return count;
}

/* What comes from outside (a file's name) must not move the cursor. */
static void keep_to_one_line(char *text) {
        for (unsigned char *c = (unsigned char *) text; *c; c++)
                if (*c < ' ' || *c == 0x7f)
                        *c = '?';
}

static int add(Table *table, const char *text, bool right) {
        Cell *grown = reallocarray(table->cells, table->count + 1, sizeof *grown);

        if (!grown)
                return -ENOMEM;
        table->cells = grown;
        grown[table->count] = (Cell) { strdup(text), count_characters(text), right };
        if (!grown[table->count].text)
                return -ENOMEM;
        keep_to_one_line(grown[table->count].text);
        table->count++;
        return 0;
}

int table_add(Table *table, const char *text) {
        return add(table, text, false);
}

int table_add_right(Table *table, const char *text) {
        return add(table, text, true);
}

void size_format(uint64_t bytes, char text[static SIZE_TEXT_MAX]) {
        static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
        double value = (double) bytes;
        size_t unit = 0;

        /* 1023.95 would be printed as 1024.0. */
        while (value >= 1023.95 && unit + 1 < sizeof units / sizeof *units) {
                value /= 1024;
                unit++;
        }
        if (unit == 0)
                snprintf(text, SIZE_TEXT_MAX, "%" PRIu64 " B", bytes);
        else
                snprintf(text, SIZE_TEXT_MAX, "%.1f %s", value, units[unit]);
}

int table_add_size(Table *table, uint64_t bytes) {
        char text[SIZE_TEXT_MAX];

        size_format(bytes, text);
        return table_add_right(table, text);
}

int table_format(const Table *table, char **ret, size_t *ret_length) {
        CLEANUP(freep) char *text = NULL;
        CLEANUP(freep) int *widths = calloc(table->columns, sizeof *widths);
        size_t length;
        FILE *f;

        if (!widths)
                return -ENOMEM;
        for (size_t i = 0; i < table->count; i++)
                if (widths[i % table->columns] < table->cells[i].width)
                        widths[i % table->columns] = table->cells[i].width;
        f = open_memstream(&text, &length);
        if (!f)
                return -ENOMEM;
        for (size_t i = 0; i < table->count; i++) {
                const Cell *cell = &table->cells[i];
                size_t column = i % table->columns;
                bool last = column + 1 == table->columns;
                int padding = widths[column] - cell->width;

                if (cell->right)
                        fprintf(f, "%*s", padding, "");
                fputs(cell->text, f);
                if (!cell->right && !last)
                        fprintf(f, "%*s", padding, "");
                fputs(last ? "\n" : "  ", f);
        }
        if (fclose(f) != 0)
                return -ENOMEM;
        *ret = STEAL_PTR(text);
        *ret_length = length;
        return 0;
}
