#include "chain/chain-map.h"

#include <inttypes.h>

static const char *const state_names[] = {
        [EXTENT_DATA] = "data",
        [EXTENT_ZERO] = "zero",
        [EXTENT_UNREADABLE] = "unreadable",
};

static void print_text(FILE *f, const ChainExtent *extent, bool absent, bool first) {
        fprintf(f, "%-20" PRIu64 " %-20" PRIu64 " %-10s %s\n", extent->start, extent->length,
                absent ? "absent" : state_names[extent->state], extent->point ?: "-");
}

/* Point names need no escapes: they are digits, letters and dashes. */
static void print_json(FILE *f, const ChainExtent *extent, bool absent, bool first) {
        bool zero = !absent && extent->state == EXTENT_ZERO;

        fprintf(f, "%s{\"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"data\": %s, \"zero\": %s, ", first ? "" : ",\n ",
                extent->start, extent->length, absent || zero ? "false" : "true", zero ? "true" : "false");
        if (absent)
                fputs("\"absent\": true, ", f);
        else if (extent->state == EXTENT_UNREADABLE)
                fputs("\"unreadable\": true, ", f);
        if (extent->point)
                fprintf(f, "\"point\": \"%s\"}", extent->point);
        else
                fputs("\"point\": null}", f);
}

const ChainPrinter chain_printer_text = { "Start                Length               State      Point\n", "", print_text };
const ChainPrinter chain_printer_json = { "[", "]\n", print_json };

static int print_map(const ChainView *view, const ChainPrinter *printer, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *text = NULL;
        size_t length;
        FILE *f = open_memstream(&text, &length);
        int rc = 0;

        if (!f)
                return fail_oom(reterr);
        fputs(printer->head, f);
        for (uint64_t offset = 0; rc >= 0 && offset < chain_view_size(view);) {
                ChainExtent extent;

                rc = chain_view_next_extent(view, offset, &extent, reterr);
                if (rc < 0)
                        break;
                printer->print(f, &extent, false, offset == 0);
                offset = extent.start + extent.length;
        }
        fputs(printer->tail, f);
        if (fclose(f) != 0 && rc >= 0)
                rc = fail_oom(reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(text);
        *ret_length = length;
        return 0;
}

int chain_map_text(const ChainView *view, char **ret, size_t *ret_length, Reason *reterr) {
        return print_map(view, &chain_printer_text, ret, ret_length, reterr);
}

int chain_map_json(const ChainView *view, char **ret, size_t *ret_length, Reason *reterr) {
        return print_map(view, &chain_printer_json, ret, ret_length, reterr);
}
