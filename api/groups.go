package api

import (
	"context"
	"slices"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// Pages of a group's members.
const (
	defaultMembers = 100
	maxMembersPage = 1000
)

// group is what PUT and GET of a group show.
type group struct {
	Group string `json:"group"`
	Size  int    `json:"size"`
	Kind  string `json:"kind"`
	Head  uint64 `json:"head"`
}

func groupOf(info store.GroupInfo) group {
	kind := "inbox"
	if info.Large {
		kind = "large"
	}
	return group{Group: info.Group, Size: info.Size, Kind: kind, Head: info.Head}
}

func (s *server) putGroup(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("group")
	if string(in.fields["members"]) == "null" { // leaves the list as it is, like its absence
		in.take("members")
	}
	members := distinct(in.names("members"))
	if s.o.MaxMembers > 0 && len(members) > s.o.MaxMembers {
		in.wrong(bad("a group has at most %d members", s.o.MaxMembers))
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	info, err := s.hub.PutGroup(ctx, name, members)
	if err != nil {
		return nil, err
	}
	return encode(groupOf(info))
}

func (s *server) getGroup(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("group")
	if err := in.done(); err != nil {
		return nil, err
	}
	info, err := s.hub.Group(ctx, name)
	if err != nil {
		return nil, err
	}
	return encode(groupOf(info))
}

func (s *server) deleteGroup(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("group")
	if err := in.done(); err != nil {
		return nil, err
	}
	if err := s.hub.DeleteGroup(ctx, name); err != nil {
		return nil, err
	}
	return []byte("{}\n"), nil
}

func (s *server) getMembers(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("group")
	cursor, given := in.param("cursor")
	if given && !codec.ValidName(cursor, codec.MaxName) {
		in.wrong(bad("this cursor was not given by a page before"))
	}
	limit := in.limit(defaultMembers, maxMembersPage)
	if err := in.done(); err != nil {
		return nil, err
	}
	members, next, err := s.hub.Members(ctx, name, cursor, limit)
	if err != nil {
		return nil, err
	}
	page := struct {
		Members []string `json:"members"`
		Cursor  string   `json:"cursor,omitempty"`
	}{members, next}
	if page.Members == nil {
		page.Members = []string{}
	}
	return encode(page)
}

func (s *server) postMembers(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("group")
	add, remove := distinct(in.names("add")), distinct(in.names("remove"))
	for _, user := range remove {
		if _, both := slices.BinarySearch(add, user); both {
			in.wrong(bad("%.64q stands in add and in remove", user))
		}
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	size, err := s.hub.ChangeMembers(ctx, name, add, remove)
	if err != nil {
		return nil, err
	}
	return encode(map[string]int{"size": size})
}

// distinct sorts names and drops repeats; nil stays nil.
func distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
