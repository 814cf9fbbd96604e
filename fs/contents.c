#include "contents.h"

#include <errno.h>

#include "chain/allocation.h"
#include "chain/chain-map.h"
#include "log.h"
#include "repository/point.h"

static int make_map(const Item *item, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        int rc;

        rc = chain_open(item->vm->vm, item->point->name, item_disk(item)->name, &chain, reterr);
        if (rc < 0)
                return rc;
        return chain_map_text(chain, ret, ret_length, reterr);
}

int contents_info(Tree *tree, const Item *item, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *problem = NULL;
        int rc;

        if (item->point->manifest)
                allocation_find_all(item->vm->vm, item->point->manifest);
        rc = completeness_problem(tree->completeness, item->vm, item->point->name, &problem, reterr);
        if (rc < 0)
                return rc;
        return point_info(item->vm->vm, item->point->name, item->point->manifest, problem, ret, ret_length, reterr);
}

static int make(Tree *tree, const Item *item, char **ret, size_t *ret_length, Reason *reterr) {
        switch (item->node.kind) {
        case NODE_INFO:
                return contents_info(tree, item, ret, ret_length, reterr);
        case NODE_MAP:
                return make_map(item, ret, ret_length, reterr);
        default:
                return fail(reterr, -EINVAL, "no such contents");
        }
}

int contents_make(Tree *tree, const Item *item, char **ret, size_t *ret_length) {
        Reason reason = REASON_INIT;
        char subject[SUBJECT_MAX];
        int rc;

        rc = make(tree, item, ret, ret_length, &reason);
        if (rc < 0) {
                item_subject(item, subject);
                log_once(node_number(item->node), "%s: %s", subject, reason.text);
        }
        return rc;
}
