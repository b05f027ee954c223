package admin

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const claimsPath = "/admin/claims"

func (f *face) mountClaims() {
	f.get(claimsPath, f.claims)
	f.get(claimsPath+"/new", f.askClaim)
	f.post(claimsPath+"/new", f.createClaim)
	f.get(claimsPath+"/{id}", f.claim)
	f.get(claimsPath+"/{id}/edit", f.askEditClaim)
	f.post(claimsPath+"/{id}/edit", f.editClaim)
	f.get(claimsPath+"/{id}/delete", f.askDeleteClaim)
	f.post(claimsPath+"/{id}/delete", f.deleteClaim)
}

func claimPath(id string) string { return claimsPath + "/" + id }

func (f *face) claims(v *visit) error {
	items, list, err := listed(v, claimsPath, func(c store.Claim) string { return c.NameKey }, func(p directory.Page) (directory.List[store.Claim], error) {
		p.Prefix = v.Field("q")
		return f.Directory.Claims(v.Request.Context(), v.Actor(), p)
	})
	if err != nil {
		return err
	}
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, claimList(items, list))
	}
	return v.show(page.Layout{Title: "Claims", Active: claimsPath, Live: true, Content: claimsContent(items, list, v.can(directory.ClaimsWrite))})
}

// A claimView is a claim as its page shows it.
type claimView struct {
	store.Claim
	Message   page.Message
	Groups    []store.Group
	SeeGroups bool
	Beyond    bool // the visitor does not hold the right that it gives
	Write     bool // the visitor may change it
}

func (f *face) claimOf(v *visit) (claimView, error) {
	ctx := v.Request.Context()
	found, err := f.Directory.Claim(ctx, v.Actor(), v.Request.PathValue("id"))
	if err != nil {
		return claimView{}, err
	}
	c := claimView{Claim: found, SeeGroups: v.can(directory.GroupsRead)}
	c.Beyond = !v.Rights.Holds(directory.Right{ShortName: c.ShortName, Value: c.Value})
	c.Write = v.can(directory.ClaimsWrite) && !c.Beyond
	if c.SeeGroups {
		c.Groups, err = f.Directory.GroupsWithClaim(ctx, v.Actor(), c.ID)
	}
	return c, err
}

func claimLayout(c claimView) page.Layout {
	return page.Layout{Title: c.Name, Active: claimsPath, Content: claimContent(c)}
}

func (f *face) claim(v *visit) error {
	c, err := f.claimOf(v)
	if err != nil {
		return err
	}
	return v.show(claimLayout(c))
}

// A claimForm is the form of a new or changed claim.
type claimForm struct {
	ID, Title              string // ID is empty: a new claim
	Message                page.Message
	Name, ShortName, Value string
	Version                string
}

// The problems of the fields of a claim.
var (
	shortNameCodes = []string{"claim_name_reserved", "claim_name_invalid"}
	valueCodes     = []string{"invalid_value", "unknown_permission"}
)

func (c claimForm) layout() page.Layout {
	return page.Layout{Title: c.Title, Active: claimsPath, Content: claimFormContent(c)}
}

func typedClaim(v *visit) claimForm {
	return claimForm{Title: "New claim", Name: v.Field("name"), ShortName: v.Field("short_name"), Value: v.Field("value")}
}

func (f *face) askClaim(v *visit) error {
	if err := f.Directory.Authorize(v.Request.Context(), v.Actor(), directory.ClaimsWrite); err != nil {
		return err
	}
	return v.show(typedClaim(v).layout())
}

func (f *face) createClaim(v *visit) error {
	form := typedClaim(v)
	c, err := f.Directory.CreateClaim(v.Request.Context(), v.Actor(), directory.NewClaim{Name: form.Name, ShortName: form.ShortName, Value: form.Value})
	if err == nil {
		v.Flash(page.Success, c.Name+" has been created. A group has to give it before anybody has it.")
		return v.Redirect(claimPath(c.ID))
	}
	return v.retry(err, func(m page.Message) page.Layout {
		form.Message = m
		if m.Code == directory.ErrBeyondOwnRights.Code {
			form.Message.Text = "You can make claims for rights alone that your own account holds. A right that nobody holds yet can be made by a superuser (admin=all)."
		}
		return form.layout()
	})
}

func (c claimView) form() claimForm {
	return claimForm{ID: c.ID, Title: "Edit " + c.Name, Name: c.Name, ShortName: c.ShortName, Value: c.Value, Version: strconv.FormatInt(c.Version, 10)}
}

func (f *face) askEditClaim(v *visit) error {
	if err := f.Directory.Authorize(v.Request.Context(), v.Actor(), directory.ClaimsWrite); err != nil {
		return err
	}
	c, err := f.claimOf(v)
	if err != nil {
		return err
	}
	return v.show(c.form().layout())
}

func (f *face) editClaim(v *visit) error {
	typed := typedClaim(v)
	c, err := f.Directory.UpdateClaim(v.Request.Context(), v.Actor(), v.Request.PathValue("id"), directory.ClaimPatch{
		Name: &typed.Name, ShortName: &typed.ShortName, Value: &typed.Value, Version: version(v),
	})
	if err == nil {
		v.Flash(page.Success, c.Name+" has been changed.")
		return v.Redirect(claimPath(c.ID))
	}
	found, failed := f.claimOf(v)
	if failed != nil || errors.Is(err, directory.ErrClaimNotFound) {
		return err
	}
	return v.retry(err, func(m page.Message) page.Layout {
		form := found.form() // with the version of what there is now
		form.Message, form.Name, form.ShortName, form.Value = m, typed.Name, typed.ShortName, typed.Value
		if m.Code == directory.ErrChangedMeanwhile.Code {
			form.Message.Text += " Now it is " + found.Name + ", " + found.ShortName + "=" + found.Value + "."
		}
		return form.layout()
	})
}

func (f *face) askDeleteClaim(v *visit) error {
	if err := f.Directory.Authorize(v.Request.Context(), v.Actor(), directory.ClaimsWrite); err != nil {
		return err
	}
	c, err := f.claimOf(v)
	if err != nil {
		return err
	}
	text := "Deleting the claim " + c.Name + " takes " + c.ShortName + "=" + c.Value + " from "
	switch {
	case !c.SeeGroups:
		text += "the members of all groups that give it, and revokes their tokens. Their sessions go on."
	case len(c.Groups) == 0:
		text += "nobody, because no group gives it."
	default:
		var names []string
		for _, g := range c.Groups {
			names = append(names, g.Name)
		}
		text += "the members of " + enumerate(names) + ", and revokes their tokens. Their sessions go on."
	}
	return v.show(page.Layout{Title: "Delete " + c.Name, Active: claimsPath, Content: page.Confirm(page.Confirmation{
		Action: claimPath(c.ID) + "/delete", Text: text + " This cannot be undone.", Button: "Delete " + c.Name, Danger: true, Cancel: claimPath(c.ID),
		Fields: map[string]string{"name": c.Name},
	})})
}

func (f *face) deleteClaim(v *visit) error {
	err := f.Directory.DeleteClaim(v.Request.Context(), v.Actor(), v.Request.PathValue("id"))
	if err == nil {
		v.Flash(page.Success, cmp.Or(v.Field("name"), "The claim")+" has been deleted.")
		return v.Redirect(claimsPath)
	}
	c, failed := f.claimOf(v)
	if failed != nil || errors.Is(err, directory.ErrClaimNotFound) {
		return err
	}
	return v.retry(err, func(m page.Message) page.Layout {
		c.Message = m
		return claimLayout(c)
	})
}
