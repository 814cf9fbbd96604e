#include "capture/plan.h"

#include "unit.h"

#define BLOCK 4096u
#define DISK_MAX (40u * BLOCK)

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint64_t random_below(uint64_t bound) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state % bound;
}

/* The model: every byte of a disk has a state of its own. */
typedef struct Model {
        uint64_t size, parent_size;
        bool compared, top;
        bool dirty[DISK_MAX], zero[DISK_MAX], below[DISK_MAX];
        ParentState parent[DISK_MAX];
        bool parent_zero[DISK_MAX]; /* its bytes, whatever its map says */
} Model;

static uint64_t random_run(uint64_t room) {
        uint64_t run = random_below(3) ? 1 + random_below(3 * BLOCK) : (1 + random_below(6)) * BLOCK;

        return run < room ? run : room;
}

static void model_fill(Model *model) {
        for (uint64_t at = 0, run; at < model->size; at += run) {
                run = random_run(model->size - at);
                memset(model->dirty + at, random_below(3) == 0, run);
        }
        for (uint64_t at = 0, run; at < model->size; at += run) {
                run = random_run(model->size - at);
                memset(model->zero + at, random_below(2) == 0, run);
        }
        for (uint64_t at = 0, run; at < model->size; at += run) {
                run = random_run(model->size - at);
                memset(model->below + at, random_below(2) == 0, run);
        }
        for (uint64_t at = 0, run; at < model->parent_size; at += run) {
                ParentState state = random_below(8) == 0 ? PARENT_LOST : random_below(2) ? PARENT_DATA : PARENT_ZERO;

                run = random_run(model->parent_size - at);
                for (uint64_t i = at; i < at + run; i++) {
                        model->parent[i] = state;
                        model->parent_zero[i] = state == PARENT_ZERO;
                }
        }
        for (uint64_t at = 0, run; at < model->parent_size; at += run) {
                run = random_run(model->parent_size - at);
                if (random_below(2))
                        memset(model->parent_zero + at, true, run);
        }
}

static bool model_parent_is_zero(void *context, uint64_t start, uint64_t length) {
        const Model *model = context;

        CHECK(length > 0 && length < BLOCK && start / BLOCK == (start + length - 1) / BLOCK);
        for (uint64_t i = start; i < start + length; i++)
                if (!model->parent_zero[i])
                        return false;
        return true;
}

static bool model_is_zero_over_data(const Model *model, uint64_t i) {
        return i < model->parent_size && model->zero[i] && model->parent[i] == PARENT_DATA;
}

static bool model_is_dirty(const Model *model, uint64_t i) {
        if (i >= model->parent_size || model->parent[i] == PARENT_LOST)
                return !model->top || !model->below[i];
        return (model->compared ? !model->zero[i] : model->dirty[i]) ||
               (model_is_zero_over_data(model, i) && !model->parent_zero[i]);
}

static void model_say(const Model *model, uint64_t start, uint64_t length, SourceExtents *source, ParentExtents *parent) {
        source->count = 0;
        parent->count = 0;
        for (uint64_t i = start; i < start + length; i++) {
                SourceExtent *last = source->count > 0 ? &source->items[source->count - 1] : NULL;

                if (last && last->dirty == model->dirty[i] && last->zero == model->zero[i] &&
                    last->below == model->below[i] && random_below(5000)) {
                        last->length++;
                } else {
                        CHECK(source->count < source->capacity);
                        source->items[source->count++] =
                                (SourceExtent) { i, 1, model->dirty[i], model->zero[i], model->below[i] };
                }
                if (i < model->parent_size)
                        CHECK_INT(parent_extents_add(parent, i, 1, model->parent[i]), 0);
        }
}

static void model_check(const Model *model, uint64_t start, uint64_t length, const Plan *plan) {
        uint64_t read = 0, parent_data = 0;
        size_t item = 0;

        for (uint64_t block = start; block < start + length; block += BLOCK) {
                uint64_t end = block + BLOCK < model->size ? block + BLOCK : model->size;
                bool dirty = false, zero = true, zero_over_data = false;
                uint64_t data = 0;

                for (uint64_t i = block; i < end; i++) {
                        dirty |= model_is_dirty(model, i);
                        zero &= model->zero[i];
                        zero_over_data |= model_is_zero_over_data(model, i);
                        data += i < model->parent_size && model->parent[i] == PARENT_DATA;
                }
                dirty |= zero && zero_over_data;
                while (item < plan->count && plan->items[item].start + plan->items[item].length <= block)
                        item++;
                if (dirty) {
                        CHECK(item < plan->count && plan->items[item].start <= block);
                        CHECK(plan->items[item].start + plan->items[item].length >= end);
                        CHECK_INT(plan->items[item].zero, zero);
                        read += zero ? 0 : end - block;
                } else {
                        CHECK(item == plan->count || plan->items[item].start >= end);
                        parent_data += data;
                }
        }
        CHECK_INT(plan->read, read);
        CHECK_INT(plan->parent_data, parent_data);
}

static void every_block_is_planned_as_its_bytes_say(void) {
        static SourceExtent items[DISK_MAX];
        SourceExtents source = { items, 0, DISK_MAX };
        Plan plan = { 0 };
        Model *model = calloc(1, sizeof *model);
        PlanParent parent = { .is_zero = model_parent_is_zero, .context = model };

        CHECK(model);
        for (int round = 0; round < 500; round++) {
                PlanDisk disk = { .block_size = BLOCK };
                uint64_t window = (1 + random_below(12)) * BLOCK;

                model->size = 1 + random_below(DISK_MAX);
                switch (random_below(4)) {
                case 0: model->parent_size = 0; break;                             /* all is taken */
                case 1: model->parent_size = model->size; break;
                case 2: model->parent_size = 1 + random_below(model->size); break; /* grown */
                default: model->parent_size = model->size + random_below(DISK_MAX - model->size + 1); /* shrunk */
                }
                model_fill(model);
                model->compared = random_below(4) == 0;
                disk.compared = model->compared;
                model->top = random_below(3) == 0;
                disk.top = model->top;
                disk.size = model->size;
                disk.parent_size = model->parent_size;
                for (uint64_t at = 0; at < model->size; at += window) {
                        uint64_t length = window < model->size - at ? window : model->size - at;

                        model_say(model, at, length, &source, &parent.extents);
                        CHECK_INT(plan_window(&disk, at, length, &source, &parent, &plan), 0);
                        model_check(model, at, length, &plan);
                }
        }
        plan_clear(&plan);
        parent_extents_clear(&parent.extents);
        free(model);
}

static void clean_without_a_parents_map_stays_absent(void) {
        SourceExtent items[] = {
                { 0, BLOCK, .zero = true },
                { BLOCK, BLOCK, .dirty = true },
                { .start = 2 * BLOCK, .length = BLOCK },
        };
        SourceExtents source = { items, 3, 3 };
        PlanDisk disk = { .size = 3 * BLOCK, .parent_size = 3 * BLOCK, .block_size = BLOCK };
        Plan plan = { 0 };

        CHECK_INT(plan_window(&disk, 0, 3 * BLOCK, &source, NULL, &plan), 0);
        CHECK_INT(plan.count, 1);
        CHECK_INT(plan.items[0].start, BLOCK);
        CHECK_INT(plan.items[0].length, BLOCK);
        CHECK_INT(plan.read, BLOCK);
        plan_clear(&plan);
}

static bool never_zero(void *context, uint64_t start, uint64_t length) {
        return false;
}

static void zero_over_the_parents_data_is_dirty_though_clean(void) {
        SourceExtent items[] = { { 0, 4 * BLOCK, .zero = true } };
        SourceExtents source = { items, 1, 1 };
        ParentExtent held[] = {
                { 0, BLOCK, PARENT_ZERO },
                { BLOCK, BLOCK + 1, PARENT_DATA },
                { 2 * BLOCK + 1, BLOCK, PARENT_ZERO },
        };
        PlanParent parent = { .extents = { held, 3, 3 }, .is_zero = never_zero };
        PlanDisk disk = { .size = 4 * BLOCK, .parent_size = 3 * BLOCK + 1, .block_size = BLOCK };
        Plan plan = { 0 };

        CHECK_INT(plan_window(&disk, 0, 4 * BLOCK, &source, &parent, &plan), 0);
        CHECK_INT(plan.count, 1);
        CHECK(plan.items[0].zero);
        CHECK_INT(plan.items[0].start, BLOCK);
        CHECK_INT(plan.items[0].length, 3 * BLOCK);
        plan_clear(&plan);
}

int main(void) {
        RUN(every_block_is_planned_as_its_bytes_say);
        RUN(clean_without_a_parents_map_stays_absent);
        RUN(zero_over_the_parents_data_is_dirty_though_clean);
        return unit_result();
}
