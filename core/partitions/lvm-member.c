#include "partitions/lvm-member.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "partitions/lvm-text.h"
#include "util/bytes.h"
#include "util/json.h"

#define SECTOR 512
#define LABEL_SECTORS 4      /* in one of which the label is */
#define TEXT_MAX (4u << 20)  /* bytes; the area for it is 1 MiB mostly */
#define AREA_HEADER 512
static const char area_magic[] = " LVM2 x[5A%r0N*>"; /* 16 bytes */

typedef struct Area {
        uint64_t start, size; /* bytes, on the physical volume; size 0: it has none */
} Area;

static void member_clear(LvmMember *member) {
        free(member->group);
        json_decref(member->metadata);
        *member = (LvmMember) { 0 };
}

void lvm_members_clear(LvmMembers *members) {
        for (size_t i = 0; i < members->count; i++)
                member_clear(&members->items[i]);
        free(members->items);
        *members = (LvmMembers) { 0 };
}

static int damaged(Reason *reterr) {
        return fail(reterr, -EBADMSG, "the metadata of LVM is damaged");
}

static int read_at(const LvmMember *member, const DiskBytes *disk, void *buffer, uint64_t length, uint64_t offset,
                   Reason *reterr) {
        if (offset > member->size || length > member->size - offset)
                return damaged(reterr);
        return disk->read(disk->context, buffer, (size_t) length, member->start + offset, reterr);
}

/* Of the label: who it is, and where the metadata is. Two lists of places, each with an empty one at its end: data, and
 * metadata. */
static int read_label(LvmMember *member, const DiskBytes *disk, Area *ret, Reason *reterr) {
        unsigned char sectors[LABEL_SECTORS * SECTOR];
        int rc = read_at(member, disk, sectors, sizeof sectors, 0, reterr);

        for (size_t i = 0; rc >= 0 && i < LABEL_SECTORS; i++) {
                const unsigned char *label = sectors + i * SECTOR;
                size_t at = load_le32(label + 20), lists = 0;

                if (memcmp(label, "LABELONE", 8) != 0 || at > SECTOR - LVM_ID_LENGTH - 8)
                        continue;
                memcpy(member->id, label + at, LVM_ID_LENGTH);
                for (at += LVM_ID_LENGTH + 8; at + 16 <= SECTOR && lists < 2; at += 16) {
                        if (load_le64(label + at) == 0)
                                lists++;
                        else if (lists == 1) {
                                *ret = (Area) { load_le64(label + at), load_le64(label + at + 8) };
                                return 0;
                        }
                }
                *ret = (Area) { 0 };
                return 0;
        }
        return rc < 0 ? rc : damaged(reterr);
}

/* The text lies in a ring behind the area's header. The caller frees *ret; length 0: none was written yet. */
static int read_text(const LvmMember *member, const DiskBytes *disk, Area area, char **ret, size_t *ret_length,
                     Reason *reterr) {
        unsigned char header[AREA_HEADER];
        CLEANUP(freep) char *text = NULL;
        uint64_t offset, length, first;
        int rc;

        if (area.start > member->size || area.size > member->size - area.start)
                return damaged(reterr);
        rc = read_at(member, disk, header, sizeof header, area.start, reterr);
        if (rc < 0)
                return rc;
        offset = load_le64(header + 40);
        length = load_le64(header + 48);
        if (memcmp(header + 4, area_magic, 16) != 0)
                return damaged(reterr);
        if (offset == 0 && length == 0) {
                *ret_length = 0;
                return 0;
        }
        if (area.size <= AREA_HEADER || offset < AREA_HEADER || offset >= area.size || length == 0 || length > TEXT_MAX ||
            length > area.size - AREA_HEADER)
                return damaged(reterr);
        text = malloc(length);
        if (!text)
                return fail_oom(reterr);
        first = min_u64(length, area.size - offset);
        rc = read_at(member, disk, text, first, area.start + offset, reterr);
        if (rc >= 0 && first < length)
                rc = read_at(member, disk, text + first, length - first, area.start + AREA_HEADER, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(text);
        *ret_length = length;
        return 0;
}

/* The volume group is the one section; beside it stand numbers and words. */
static int take_group(LvmMember *member, json_t *root, Reason *reterr) {
        const char *name;
        json_t *value;

        json_object_foreach(root, name, value) {
                if (!json_is_object(value))
                        continue;
                member->group = strdup(name);
                member->metadata = json_incref(value);
                return member->group ? 0 : fail_oom(reterr);
        }
        return 0;
}

static int read_member(LvmMember *member, const DiskBytes *disk, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *root = NULL;
        CLEANUP(freep) char *text = NULL;
        size_t length = 0;
        Area area;
        int rc;

        rc = read_label(member, disk, &area, reterr);
        if (rc >= 0 && area.size > 0)
                rc = read_text(member, disk, area, &text, &length, reterr);
        if (rc < 0 || length == 0)
                return rc;
        rc = lvm_text_parse(text, length, &root, reterr);
        return rc < 0 ? rc : take_group(member, root, reterr);
}

/* Takes what is in the member over, also where it fails. */
static int append(LvmMembers *members, LvmMember *member) {
        LvmMember *grown;

        if (members->count == LVM_MEMBERS_MAX) {
                member_clear(member);
                return 0;
        }
        grown = reallocarray(members->items, members->count + 1, sizeof *grown);
        if (!grown) {
                member_clear(member);
                return -ENOMEM;
        }
        members->items = grown;
        grown[members->count++] = *member;
        return 0;
}

int lvm_members_add(LvmMembers *members, const DiskBytes *disk, size_t disk_number, unsigned number, uint64_t start,
                    uint64_t size, Reason *reterr) {
        LvmMember member = { .disk = disk_number, .number = number, .start = start, .size = size };
        int rc = read_member(&member, disk, reterr);

        if (rc < 0) {
                member_clear(&member);
                return rc;
        }
        return append(members, &member) < 0 ? fail_oom(reterr) : 0;
}

int lvm_members_join(LvmMembers *members, const LvmMembers *others, size_t disk_number) {
        int rc = 0;

        for (size_t i = 0; rc >= 0 && i < others->count; i++) {
                LvmMember member = others->items[i];

                member.disk = disk_number;
                json_incref(member.metadata);
                member.group = member.group ? strdup(member.group) : NULL;
                rc = others->items[i].group && !member.group ? -ENOMEM : 0;
                if (rc < 0)
                        json_decref(member.metadata);
                else
                        rc = append(members, &member);
        }
        return rc;
}
