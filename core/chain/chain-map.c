#include "chain/chain-map.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const state_names[] = {
        [EXTENT_DATA] = "data",
        [EXTENT_ZERO] = "zero",
        [EXTENT_UNREADABLE] = "unreadable",
};

static void print_text(FILE *f, const ChainExtent *extent) {
        fprintf(f, "%-20" PRIu64 " %-20" PRIu64 " %-10s %s\n", extent->start, extent->length, state_names[extent->state],
                extent->point ?: "-");
}

/* Point names need no escapes: they are digits, letters and dashes. */
static void print_json(FILE *f, const ChainExtent *extent) {
        fprintf(f, "%s{\"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"data\": %s, \"zero\": %s, ",
                extent->start > 0 ? ",\n " : "", extent->start, extent->length,
                extent->state == EXTENT_ZERO ? "false" : "true", extent->state == EXTENT_ZERO ? "true" : "false");
        if (extent->state == EXTENT_UNREADABLE)
                fputs("\"unreadable\": true, ", f);
        if (extent->point)
                fprintf(f, "\"point\": \"%s\"}", extent->point);
        else
                fputs("\"point\": null}", f);
}

static int print_map(Chain *chain, const char *head, void (*print)(FILE *f, const ChainExtent *extent), const char *tail,
                     char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *text = NULL;
        size_t length;
        FILE *f = open_memstream(&text, &length);
        int rc = 0;

        if (!f)
                return fail_oom(reterr);
        fputs(head, f);
        for (uint64_t offset = 0; rc >= 0 && offset < chain_size(chain);) {
                ChainExtent extent;

                rc = chain_next_extent(chain, offset, &extent, reterr);
                if (rc < 0)
                        break;
                print(f, &extent);
                offset = extent.start + extent.length;
        }
        fputs(tail, f);
        if (fclose(f) != 0 && rc >= 0)
                rc = fail_oom(reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(text);
        *ret_length = length;
        return 0;
}

int chain_map_text(Chain *chain, char **ret, size_t *ret_length, Reason *reterr) {
        return print_map(chain, "Start                Length               State      Point\n", print_text, "", ret,
                         ret_length, reterr);
}

int chain_map_json(Chain *chain, char **ret, size_t *ret_length, Reason *reterr) {
        return print_map(chain, "[", print_json, "]\n", ret, ret_length, reterr);
}
