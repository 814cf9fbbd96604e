#include "partitions/lvm.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "util/bytes.h"
#include "util/text.h"

#define SECTOR 512
#define SEGMENTS_MAX 100000
#define STRIPES_MAX 128
#define NAME_LENGTH_MAX 127 /* as LVM has it */

/* What is known of a volume's group, and where its physical volumes are. */
typedef struct Group {
        const LvmMembers *members;
        const LvmMember *own;
        const char *name;
        const json_t *physical, *logical;
        uint64_t extent; /* bytes */
} Group;

static void volume_clear(LvmVolume *volume) {
        view_pieces_free(volume->pieces, volume->piece_count);
        free(volume->name);
        free(volume->trouble);
        *volume = (LvmVolume) { 0 };
}

void lvm_volumes_clear(LvmVolumes *volumes) {
        for (size_t i = 0; i < volumes->count; i++)
                volume_clear(&volumes->items[i]);
        free(volumes->items);
        *volumes = (LvmVolumes) { 0 };
}

static bool take_number(const json_t *object, const char *key, uint64_t *ret) {
        const json_t *value = json_object_get(object, key);

        if (!json_is_integer(value) || json_integer_value(value) < 0)
                return false;
        *ret = (uint64_t) json_integer_value(value);
        return true;
}

static const char *text_of(const json_t *value) {
        return json_string_value(value) ?: "";
}

/* "aBcDeF-…" in the text, without dashes in the label. */
static bool is_id(const char *text, const char *id) {
        for (; *text; text++)
                if (*text != '-' && *text != *id++)
                        return false;
        return !*id;
}

/* Names are parts of file names. */
static bool is_name(const char *name) {
        return *name && *name != '.' && strlen(name) <= NAME_LENGTH_MAX &&
               strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+_.-") == strlen(name);
}

static bool has_word(const json_t *list, const char *word) {
        for (size_t i = 0; i < json_array_size(list); i++)
                if (strcmp(text_of(json_array_get(list, i)), word) == 0)
                        return true;
        return false;
}

/* ---- the group ---- */

static bool has_physical(const json_t *metadata, const char *id) {
        const char *name;
        json_t *physical;

        json_object_foreach(json_object_get(metadata, "physical_volumes"), name, physical)
                if (is_id(text_of(json_object_get(physical, "id")), id))
                        return true;
        return false;
}

/* Who tells most recently of the group that the own one is in. Another that is in the same disk may be a copy of it. */
static const LvmMember *find_teller(const LvmMembers *members, const LvmMember *own) {
        const LvmMember *newest = NULL;
        uint64_t newest_seqno = 0, seqno;

        for (size_t i = 0; i < members->count; i++) {
                const LvmMember *member = &members->items[i];

                if (!take_number(member->metadata, "seqno", &seqno))
                        seqno = 0;
                if (has_physical(member->metadata, own->id) &&
                    (!newest || seqno > newest_seqno || (seqno == newest_seqno && member == own))) {
                        newest = member;
                        newest_seqno = seqno;
                }
        }
        return newest;
}

/* The physical volume that the metadata calls so: the one on the own one's disk where there are copies of it. */
static const LvmMember *find_member(const Group *group, const char *name) {
        const char *id = text_of(json_object_get(json_object_get(group->physical, name), "id"));
        const LvmMember *found = NULL;

        for (size_t i = 0; i < group->members->count; i++) {
                const LvmMember *member = &group->members->items[i];

                if (!is_id(id, member->id))
                        continue;
                if (member == group->own)
                        return member;
                if (!found || (found->disk != group->own->disk && member->disk == group->own->disk))
                        found = member;
        }
        return found;
}

/* ---- volumes ---- */

static const json_t *segment_of(const json_t *volume, uint64_t number) {
        char key[32];

        snprintf(key, sizeof key, "segment%u", (unsigned) number);
        return json_object_get(volume, key);
}

/* Where a snapshot is being merged into the volume, that is not what its places have. */
static int refuse_merging(const Group *group, const char *name, Reason *reterr) {
        const char *other;
        json_t *volume;

        json_object_foreach((json_t *) group->logical, other, volume) {
                const json_t *segment = segment_of(volume, 1);

                if (json_object_get(segment, "merging_store") &&
                    strcmp(text_of(json_object_get(segment, "origin")), name) == 0)
                        return fail(reterr, -ENOTSUP, "a snapshot is being merged into it, and LVM alone knows how to read "
                                                      "both");
        }
        return 0;
}

static int place_stripe(const Group *group, const json_t *stripes, size_t index, uint64_t share, ViewPlace *ret,
                        Reason *reterr) {
        const char *name = text_of(json_array_get(stripes, 2 * index));
        const json_t *first = json_array_get(stripes, 2 * index + 1);
        const LvmMember *member = find_member(group, name);
        uint64_t data_start, start, end;

        if (!json_object_get(group->physical, name))
                return fail(reterr, -ENOTSUP, "it lies on another volume, %.127s, as while it is being moved", name);
        if (!member)
                return fail(reterr, -ENOENT, "some of it is on the physical volume %.127s, which no disk of the point has",
                            name);
        if (!json_is_integer(first) || json_integer_value(first) < 0 ||
            !take_number(json_object_get(group->physical, name), "pe_start", &data_start) ||
            __builtin_mul_overflow(data_start, SECTOR, &data_start) ||
            __builtin_mul_overflow((uint64_t) json_integer_value(first), group->extent, &start) ||
            __builtin_add_overflow(start, data_start, &start) || __builtin_add_overflow(start, share, &end) ||
            end > member->size)
                return fail(reterr, -EBADMSG, "it does not lie within the disk");
        *ret = (ViewPlace) { member->disk, member->start + start };
        return 0;
}

/* One segment. Its size counts in *extents. */
static int take_piece(const Group *group, const json_t *segment, uint64_t *extents, ViewPiece *piece, Reason *reterr) {
        const json_t *stripes = json_object_get(segment, "stripes");
        const char *type = text_of(json_object_get(segment, "type"));
        uint64_t start, count, stripe_count, stripe_size = 0;
        int rc = 0;

        if (*type && strcmp(type, "striped") != 0)
                return fail(reterr, -ENOTSUP, "it is of the kind \"%.40s\", of which LVM alone knows how to read it", type);
        if (!take_number(segment, "start_extent", &start) || start != *extents ||
            !take_number(segment, "extent_count", &count) || count == 0 ||
            !take_number(segment, "stripe_count", &stripe_count) || stripe_count == 0 || stripe_count > STRIPES_MAX ||
            json_array_size(stripes) != 2 * stripe_count || count % stripe_count != 0 ||
            (stripe_count > 1 && !take_number(segment, "stripe_size", &stripe_size)) ||
            __builtin_mul_overflow(stripe_size, SECTOR, &piece->stripe_size) ||
            __builtin_mul_overflow(count, group->extent, &piece->size) || __builtin_add_overflow(start, count, extents))
                return fail(reterr, -EBADMSG, "the metadata of LVM is damaged");
        if (stripe_count > 1 && (stripe_size == 0 || piece->size / stripe_count % piece->stripe_size != 0))
                return fail(reterr, -ENOTSUP, "its stripes do not fit its extents");
        piece->places = calloc(stripe_count, sizeof *piece->places);
        if (!piece->places)
                return fail_oom(reterr);
        for (size_t i = 0; rc >= 0 && i < stripe_count; i++)
                rc = place_stripe(group, stripes, i, piece->size / stripe_count, &piece->places[i], reterr);
        piece->place_count = stripe_count;
        return rc;
}

/* Whether the piece lies right behind the last one. */
static bool goes_on(const LvmVolume *volume, const ViewPiece *piece) {
        const ViewPiece *last = volume->piece_count > 0 ? &volume->pieces[volume->piece_count - 1] : NULL;

        return last && last->place_count == 1 && piece->place_count == 1 && last->places->disk == piece->places->disk &&
               last->places->start + last->size == piece->places->start;
}

static int take_pieces(const Group *group, const json_t *json, uint64_t count, LvmVolume *volume, Reason *reterr) {
        uint64_t extents = 0;
        int rc = 0;

        for (uint64_t i = 1; rc >= 0 && i <= count; i++) {
                ViewPiece piece = { 0 };

                rc = take_piece(group, segment_of(json, i), &extents, &piece, reterr);
                if (rc >= 0 && __builtin_add_overflow(volume->size, piece.size, &volume->size))
                        rc = fail(reterr, -EBADMSG, "it does not lie within the disk");
                if (rc >= 0 && !goes_on(volume, &piece)) {
                        volume->pieces[volume->piece_count++] = piece;
                        continue;
                }
                if (rc >= 0)
                        volume->pieces[volume->piece_count - 1].size += piece.size;
                free(piece.places);
        }
        return rc;
}

/* Where the volume's bytes are. -ENOMEM alone is a failure of ours. */
static int take_places(const Group *group, const char *name, const json_t *json, LvmVolume *volume, Reason *reterr) {
        uint64_t count;
        int rc = refuse_merging(group, name, reterr);

        if (rc < 0)
                return rc;
        if (!take_number(json, "segment_count", &count) || count == 0 || count > SEGMENTS_MAX ||
            count > json_object_size(json))
                return fail(reterr, -EBADMSG, "the metadata of LVM is damaged");
        volume->pieces = calloc(count, sizeof *volume->pieces);
        if (!volume->pieces)
                return fail_oom(reterr);
        return take_pieces(group, json, count, volume, reterr);
}

/* The first physical volume that has some of it and is there: it is listed with that. NULL: none is. */
static const LvmMember *find_first(const Group *group, const json_t *json) {
        uint64_t count;

        if (!take_number(json, "segment_count", &count))
                return NULL;
        for (uint64_t i = 1; i <= count && i <= json_object_size(json); i++) {
                const json_t *stripes = json_object_get(segment_of(json, i), "stripes");

                for (size_t stripe = 0; stripe < json_array_size(stripes); stripe += 2) {
                        const LvmMember *member = find_member(group, text_of(json_array_get(stripes, stripe)));

                        if (member)
                                return member;
                }
        }
        return NULL;
}

/* Those that have no places of their own, such as thin ones, are listed with the first physical volume that is there. */
static bool is_listed_here(const Group *group, const json_t *json) {
        const LvmMember *first = find_first(group, json);
        const char *name;
        json_t *physical;

        if (first)
                return first == group->own;
        json_object_foreach((json_t *) group->physical, name, physical) {
                first = find_member(group, name);
                if (first)
                        return first == group->own;
        }
        return false;
}

/* Takes what is in the volume over, also where it fails. */
static int add(LvmVolumes *volumes, const Group *group, const char *name, LvmVolume *volume) {
        LvmVolume *grown = reallocarray(volumes->items, volumes->count + 1, sizeof *grown);

        if (grown)
                volumes->items = grown;
        if (!grown || text_format(&volume->name, "%s-%s", group->name, name) < 0) {
                volume_clear(volume);
                return -ENOMEM;
        }
        grown[volumes->count++] = *volume;
        return 0;
}

static int add_volume(LvmVolumes *volumes, const Group *group, const char *name, const json_t *json) {
        LvmVolume volume = { 0 };
        Reason reason = REASON_INIT;
        int rc = take_places(group, name, json, &volume, &reason);

        if (rc < 0) {
                volume_clear(&volume);
                volume.trouble = rc == -ENOMEM ? NULL : strdup(reason.text);
                if (!volume.trouble)
                        return -ENOMEM;
        }
        return add(volumes, group, name, &volume);
}

static bool is_snapshot(const json_t *json) {
        return strcmp(text_of(json_object_get(segment_of(json, 1), "type")), "snapshot") == 0;
}

/* Such a section says of another volume, which is not visible, that it has what a third one had. */
static int add_snapshot(LvmVolumes *volumes, const Group *group, const json_t *json) {
        const json_t *segment = segment_of(json, 1);
        const json_t *store = json_object_get(segment, "cow_store") ?: json_object_get(segment, "merging_store");
        const char *name = text_of(store);
        LvmVolume volume = { 0 };

        if (!is_name(name) || !is_listed_here(group, json_object_get(group->logical, name)))
                return 0;
        if (text_format(&volume.trouble, "it is a snapshot of %.127s, which LVM alone knows how to read",
                        text_of(json_object_get(segment, "origin"))) < 0)
                return -ENOMEM;
        return add(volumes, group, name, &volume);
}

static int add_if_shown(LvmVolumes *volumes, const Group *group, const char *name, const json_t *json) {
        if (volumes->count == LVM_VOLUMES_MAX)
                return 0;
        if (is_snapshot(json))
                return add_snapshot(volumes, group, json);
        if (!is_name(name) || !has_word(json_object_get(json, "status"), "VISIBLE") || !is_listed_here(group, json))
                return 0;
        return add_volume(volumes, group, name, json);
}

int lvm_volumes_find(const LvmMembers *members, size_t own, LvmVolumes *ret, Reason *reterr) {
        CLEANUP(lvm_volumes_clear) LvmVolumes volumes = { 0 };
        const LvmMember *teller = find_teller(members, &members->items[own]);
        Group group = { .members = members, .own = &members->items[own] };
        const char *name;
        json_t *json;
        int rc = 0;

        if (!teller && !members->items[own].metadata) { /* in no group yet */
                *ret = (LvmVolumes) { 0 };
                return 0;
        }
        if (!teller || !is_name(teller->group) || !take_number(teller->metadata, "extent_size", &group.extent) ||
            __builtin_mul_overflow(group.extent, SECTOR, &group.extent))
                return fail(reterr, -EBADMSG, "the metadata of LVM is damaged");
        group.name = teller->group;
        group.physical = json_object_get(teller->metadata, "physical_volumes");
        group.logical = json_object_get(teller->metadata, "logical_volumes");
        json_object_foreach((json_t *) group.logical, name, json)
                if (rc >= 0)
                        rc = add_if_shown(&volumes, &group, name, json);
        if (rc < 0)
                return fail_oom(reterr);
        *ret = volumes;
        volumes = (LvmVolumes) { 0 };
        return 0;
}
